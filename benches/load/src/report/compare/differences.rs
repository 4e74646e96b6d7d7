//! What sets two reports apart beside their figures.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::report::{Report, units};

/// The longest value that is shown whole.
const SHOWN_MAX: usize = 60;

/// Something that was not the same in both reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What, such as `machine.cores` or `settings.load.rate`.
    pub what: String,
    /// What it was before; `-` where it was not set.
    pub before: String,
    /// What it is after.
    pub after: String,
}

/// Everything but the figures, the times and the words of both.
pub(super) fn between(before: &Report, after: &Report) -> Vec<Difference> {
    let (before, after) = (values(before), values(after));
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let show = |values: &BTreeMap<String, Value>, name| match values.get(name) {
        None => units::NONE.to_owned(),
        Some(Value::String(text)) => units::clipped(text, SHOWN_MAX),
        Some(value) => units::clipped(&value.to_string(), SHOWN_MAX),
    };
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| Difference { what: name.clone(), before: show(&before, name), after: show(&after, name) })
        .collect()
}

fn values(report: &Report) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    let machine = &report.machine;
    values.insert("machine.system".into(), machine.system.clone().into());
    values.insert("machine.processor".into(), machine.processor.clone().into());
    values.insert("machine.cores".into(), machine.cores.into());
    values.insert("version".into(), machine.windrow.clone().into());
    values.insert("seed".into(), report.seed.into());
    flatten("settings", &report.settings, &mut values);
    values
}

fn flatten(name: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (member, value) in members {
                flatten(&format!("{name}.{member}"), value, into);
            }
        }
        value => {
            into.insert(name.to_owned(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn what_differs_is_named_and_nothing_else() {
        let before = sample::report(0);
        assert_eq!(between(&before, &before), []);
        let mut after = before.clone();
        after.machine.cores = 8;
        after.seed = 8;
        after.machine.windrow = "0.2.0".into();
        after.started = "later".into();
        after.settings["load"]["arrivals"] = "constant".into();
        after.settings["hedge"] = true.into();
        let found = between(&before, &after);
        let names: Vec<&str> = found.iter().map(|difference| difference.what.as_str()).collect();
        assert_eq!(names, ["machine.cores", "seed", "settings.hedge", "settings.load.arrivals", "version"]);
        assert_eq!((found[2].before.as_str(), found[2].after.as_str()), ("-", "true"));
        assert_eq!((found[3].before.as_str(), found[3].after.as_str()), ("poisson", "constant"));
    }
}
