//! Who is there and who does what: the coordinator and the controller.
