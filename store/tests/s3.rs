//! A store in a bucket, over a real HTTP server of S3.
#![cfg(unix)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{fs, io, thread};

use bytes::Bytes;
use model::ids::{Epoch, ShardId};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use store::conformance::{soon, suite};
use store::moto::Moto;
use store::{Error, Kind, Put, S3, Store, keys};

#[tokio::test]
async fn a_bucket_conforms() {
    let Some(moto) = Moto::start() else { return };
    suite(&moto.store("docs", "")).await;
    suite(&moto.store("docs", "a/prefix")).await;
    let outside = moto.store("docs", "a").objects().list_with_delimiter(None).await.unwrap();
    assert!(outside.objects.is_empty());
    assert_eq!(outside.common_prefixes, [Path::from("prefix")], "a store stays below its prefix");
}

#[tokio::test]
async fn a_large_file_goes_and_comes_back() {
    let Some(moto) = Moto::start() else { return };
    let store = moto.store("docs", "files");
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("empty", 0_usize), ("small", 10), ("large", (16 << 20) + 1)] {
        let content: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
        let scratch = folder.path().join(name);
        fs::write(&scratch, &content).unwrap();
        let path = keys::segment(&store.uid(), ShardId(0), Epoch(1), name);
        let file = store.put_file(&scratch, &path).await.unwrap();
        assert_eq!(store.put_file(&scratch, &path).await.unwrap(), file, "a second put is fine");

        let dest = folder.path().join("replica").join(name);
        let part = dest.with_added_extension("part");
        fs::create_dir_all(dest.parent().unwrap()).unwrap();
        fs::write(&part, vec![7; bytes + 100]).unwrap();
        store.fetch_file_to(&file, &dest).await.unwrap();
        assert!(fs::read(&dest).unwrap() == content);
        assert!(!part.exists(), "what was left behind is overwritten and gone");

        store.objects().delete(&path).await.unwrap();
        store.fetch_file_to(&file, &dest).await.expect("a right file stays, and nothing is asked");
        fs::write(&dest, "wrong").unwrap();
        let error = store.fetch_file_to(&file, &dest).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(!dest.exists(), "a wrong file does not stay");
    }
}

#[tokio::test]
async fn a_damaged_download_is_refused() {
    let Some(moto) = Moto::start() else { return };
    let store = moto.store("docs", "");
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("file");
    for bytes in [10_usize, (8 << 20) + 1] {
        let path = keys::segment(&store.uid(), ShardId(0), Epoch(1), "file");
        let file = store.put_bytes_as_file(Bytes::from(vec![1; bytes]), &path).await.unwrap();
        let other = store.put_bytes_as_file(Bytes::from(vec![2; bytes]), &path).await.unwrap_err();
        assert_eq!(other.kind(), Kind::Conflict);
        let mut flipped = vec![1; bytes];
        flipped[bytes - 1] = 2;
        for damaged in [flipped, vec![1; bytes - 1], vec![1; bytes + 1]] {
            store.objects().put(&path, damaged.into()).await.unwrap();
            let error = store.fetch_file_to(&file, &dest).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Internal, "{error}");
            assert!(!dest.exists());
        }
    }
}

#[tokio::test]
async fn a_missing_bucket_is_named() {
    let Some(moto) = Moto::start() else { return };
    moto.store("docs", "").check().await.expect("a bucket that is there passes");
    let store = Store::s3(&moto.s3("dosc", "")).unwrap();
    let error = store.check().await.unwrap_err();
    assert_line(&error, &["\"dosc\"", &moto.endpoint, "--store"]);
    assert_eq!(error.kind(), Kind::Invalid);
    // Without its bucket an object is not known to be missing.
    let uid = store.uid();
    for error in [
        store.newest_seq(&uid, ShardId(0)).await.unwrap_err(),
        store.cut(&uid, model::ids::CutNumber(1)).await.unwrap_err(),
        store.put_bytes_as_file(Bytes::new(), &Path::from("a")).await.unwrap_err(),
    ] {
        assert_line(&error, &["NoSuchBucket"]);
        assert_eq!(error.kind(), Kind::Unavailable);
    }
}

#[tokio::test]
async fn wrong_credentials_name_their_variables() {
    let Some(moto) = Moto::strict() else { return };
    let store = moto.store("docs", "");
    let error = store.check().await.unwrap_err();
    assert_line(&error, &["InvalidAccessKeyId", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]);
    assert_eq!(error.kind(), Kind::Invalid);
    let error = store.newest_seq(&store.uid(), ShardId(0)).await.unwrap_err();
    assert_line(&error, &["InvalidAccessKeyId"]);
    assert_eq!(error.kind(), Kind::Unavailable);
}

#[tokio::test]
async fn an_endpoint_out_of_reach_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{closed}");
    let store = Store::s3(&S3 {
        bucket: "docs".into(),
        prefix: String::new(),
        endpoint: Some(endpoint.clone()),
        region: None,
        access_key_id: "test".into(),
        secret_access_key: "test".into(),
    });
    let error = store.unwrap().check().await.unwrap_err();
    assert_line(&error, &[&endpoint, "Connection refused", "AWS_ENDPOINT_URL"]);
    assert_eq!(error.kind(), Kind::Unavailable);
}

#[tokio::test]
async fn a_put_whose_answer_is_lost_is_settled_by_reading_back() {
    let Some(moto) = Moto::start() else { return };
    let direct = moto.store("docs", "");
    let proxy = Proxy::start(moto.address().to_owned());
    let store = Store::s3(&S3 { endpoint: Some(proxy.endpoint.clone()), ..moto.s3("docs", "") }).unwrap();

    let path = Path::from("log/1");
    let mine = Bytes::from_static(b"mine, by its nonce");
    proxy.cut.store(true, Ordering::SeqCst);
    let put = store.put_numbered(&path, mine.clone(), soon()).await.unwrap();
    assert_eq!(put, Put::Mine);
    assert_eq!(proxy.cuts.load(Ordering::SeqCst), 1, "the answer was lost");
    assert_eq!(direct.objects().get(&path).await.unwrap().bytes().await.unwrap(), mine);

    // Another's object, put before: the lost answer was a refusal.
    proxy.cut.store(true, Ordering::SeqCst);
    let late = store.put_numbered(&path, Bytes::from_static(b"late"), soon()).await.unwrap();
    assert_eq!(late, Put::Other(mine));
    assert_eq!(proxy.cuts.load(Ordering::SeqCst), 2);
}

/// One short line, with all that helps.
fn assert_line(error: &Error, named: &[&str]) {
    let text = error.to_string();
    assert!(!text.contains('\n') && !text.contains('<') && text.len() < 300, "{text}");
    for name in named {
        assert!(text.contains(name), "{name} is in: {text}");
    }
    println!("{text}");
}

/// Passes requests on; when told to cut, it keeps the answer to the next put to
/// itself and closes the connection.
struct Proxy {
    endpoint: String,
    cut: Arc<AtomicBool>,
    cuts: Arc<AtomicUsize>,
}

impl Proxy {
    fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (cut, cuts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let proxy = Self { endpoint, cut: Arc::clone(&cut), cuts: Arc::clone(&cuts) };
        // Ends with the process: a test has one process, or one binary.
        thread::spawn(move || {
            for client in listener.incoming() {
                if let Err(error) = client.and_then(|client| pass(client, &server, &cut, &cuts)) {
                    eprintln!("the proxy lost a connection: {error}");
                }
            }
        });
        proxy
    }
}

fn pass(mut client: TcpStream, server: &str, cut: &AtomicBool, cuts: &AtomicUsize) -> io::Result<()> {
    let request = one_request(&mut client)?;
    let mut upstream = TcpStream::connect(server)?;
    upstream.write_all(&request)?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    if request.starts_with(b"PUT") && cut.swap(false, Ordering::SeqCst) {
        cuts.fetch_add(1, Ordering::SeqCst);
        return Ok(());
    }
    client.write_all(&answer)
}

/// Reads one request, head and body. One connection carries one request here,
/// for moto closes each.
fn one_request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let head = request.windows(4).position(|end| end == b"\r\n\r\n");
        if let Some(head) = head
            && request.len() >= head + 4 + content_length(&request[..head])
        {
            return Ok(request);
        }
        match client.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => request.extend_from_slice(&buffer[..n]),
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length.map_or(0, |length| length.trim().parse().expect("a length is a number"))
}
