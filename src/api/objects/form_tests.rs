use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::api::objects::parse;
use crate::model::Length;

const FILE: &str = "--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--\r\nworld";

fn field(name: &str, value: &str) -> String {
    format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn asked() -> Asked {
    let form = HeaderValue::from_static("multipart/form-data; boundary=x");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, form)]);
    parse::request(None, &headers, Length(1 << 30)).expect("sound")
}

fn body_of(bytes: &[u8], frame: usize) -> Body {
    let frames: Vec<_> = bytes
        .chunks(frame)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    Box::pin(stream::iter(frames))
}

/// What is told of the file, and its bytes; or why there is none.
async fn read(body: Body) -> Result<(String, Vec<u8>), String> {
    let mut asked = asked();
    let within = Duration::from_mins(1);
    let found = find_file(&mut asked, body, "x".to_owned(), within).await;
    let mut file = found.map_err(|problem| problem.detail)?;
    let mut bytes = Vec::new();
    while let Some(piece) = file.next().await {
        bytes.extend_from_slice(&piece.map_err(|error| error.to_string())?);
    }
    let create = asked.file(Length(1 << 30)).expect("sound").create;
    let declared = create.declared;
    let told = format!(
        "{:?} {:?} {:?} {:?}",
        declared.filename.unwrap_or_default(),
        declared.content_type.unwrap_or_default(),
        create.length.map(Length::get),
        declared.digests
    );
    Ok((told, bytes))
}

async fn read_text(form: &str) -> Result<(String, String), String> {
    let mut seen = None;
    for frame in [1, 7, 1000] {
        let read = read(body_of(form.as_bytes(), frame)).await;
        let read = read.map(|(told, bytes)| (told, String::from_utf8(bytes).expect("text")));
        // However the form is cut into frames, it is the same form.
        assert_eq!(*seen.get_or_insert(read.clone()), read);
    }
    seen.expect("read")
}

#[tokio::test]
async fn the_file_is_found_among_fields() {
    let plain = read_text(&format!("{FILE}\r\n--x--\r\n")).await;
    let (told, text) = plain.expect("a file");
    insta::assert_snapshot!(told, @r#""a.txt" "text/plain" None Digests({})"#);
    assert_eq!(text, "hello\r\n--\r\nworld");
    let fields = [
        field("album", "1"),
        field("size", "16"),
        field("filename", "é.txt"),
        field("digest", "crc32c:00000001"),
    ]
    .concat();
    let none = "--x\r\nContent-Disposition: form-data; name=\"g\"; filename=\"\"\r\nContent-Type: application/octet-stream\r\n\r\n\r\n";
    let form = format!(
        "a preamble\r\n{fields}{none}{FILE}\r\n{}--x--",
        field("send", "ok")
    );
    let (told, text) = read_text(&form).await.expect("a file");
    insta::assert_snapshot!(told, @r#""é.txt" "text/plain" Some(16) Digests({Crc32c: crc32c:00000001})"#);
    assert_eq!(text, "hello\r\n--\r\nworld");
}

#[tokio::test]
async fn what_is_no_form_with_one_file_is_refused() {
    let why = async |form: &str| read_text(form).await.expect_err("refused");
    insta::assert_snapshot!(why("").await, @"the form is malformed: incomplete multipart stream");
    insta::assert_snapshot!(why("--x--\r\n").await, @"the form has no file: one of its parts has to have a filename");
    insta::assert_snapshot!(why(&format!("{}--x--", field("a", "b"))).await, @"the form has no file: one of its parts has to have a filename");
    insta::assert_snapshot!(why(FILE).await, @r#"the form is malformed: field "f" received with incomplete data"#);
    insta::assert_snapshot!(why(&format!("{FILE}\r\n--x")).await, @"the form is malformed: incomplete multipart stream");
    insta::assert_snapshot!(why(&format!("{FILE}\r\n{FILE}\r\n--x--")).await, @"the form has a second file; one is taken at a time");
    insta::assert_snapshot!(why(&format!("{FILE}\r\n{}--x--", field("digest", "md5:00"))).await, @"the field digest has to come before the file");
    insta::assert_snapshot!(why(&format!("{}{FILE}\r\n--x--", field("size", "x"))).await, @"size has to be a number of bytes");
    insta::assert_snapshot!(why(&format!("{}{FILE}\r\n--x--", field("size", &"1".repeat(5000)))).await, @"the field size has more than 4096 bytes, or is not UTF-8");
    insta::assert_snapshot!(why(&FILE.replace("a.txt", "a\tb")).await, @"filename may have no control characters");
    insta::assert_snapshot!(why(&FILE.replace("Content-Type: ", "Content Type: ")).await, @"the form is malformed: failed to read headers");
    let mut latin = FILE.as_bytes().to_vec();
    let at = FILE.find("a.txt").expect("a name");
    latin[at] = 0xE9;
    insta::assert_snapshot!(read(body_of(&latin, 1000)).await.expect_err("refused"), @"the name of a part is not UTF-8");
}

#[tokio::test]
async fn a_cut_is_told_as_one() {
    let cut = || Err(BodyError::Cut("by the test".into()));
    let frame = |text: &str| Ok(Bytes::copy_from_slice(text.as_bytes()));
    let early = read(Box::pin(stream::iter([frame("--x\r\n"), cut()]))).await;
    assert_eq!(early.expect_err("cut"), "the form ended before its file");
    for form in [FILE.to_owned(), format!("{FILE}\r\n--x")] {
        let late = read(Box::pin(stream::iter([frame(&form), cut()]))).await;
        assert_eq!(
            late.expect_err("cut"),
            "the connection was cut: by the test"
        );
    }
}

fn most() -> usize {
    usize::try_from(MAX_FORM_BYTES).expect("little")
}

/// A source that has more than anybody wants, and counts what was taken.
fn endless(head: &str, more: &str, frame: usize, taken: &Arc<AtomicU64>) -> Body {
    let enough = 4 * most();
    let form = head.to_owned() + &more.repeat(enough / more.len());
    let taken = Arc::clone(taken);
    let frames = body_of(form.as_bytes(), frame).inspect(move |frame| {
        let frame = frame.as_ref().expect("sound");
        taken.fetch_add(frame.len() as u64, Ordering::SeqCst);
    });
    // Where there is no limit, this is what is met.
    let never = || Err(BodyError::Cut("nobody stopped before".into()));
    Box::pin(frames.chain(stream::once(async move { never() })))
}

/// The parser keeps what it looks for an end in: before the first part, in the head of a part, and after the file.
#[tokio::test]
async fn bounded_what_is_read_of_a_form_that_has_no_file() {
    let head = "--x\r\nContent-Disposition: form-data; name=\"f\"\r\nX: ";
    let padding = "--x ";
    let skipped = "--x\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n";
    let small = field("f", "1");
    let none = "--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"\"\r\n\r\n\r\n";
    let forms = [
        ("", "a"),
        (head, "a"),
        (padding, " "),
        (skipped, "a"),
        (skipped, "\r\n"),
        ("", &small),
        ("", none),
    ];
    for before in ["", &format!("{FILE}\r\n")] {
        for (begin, more) in forms {
            if begin.is_empty() && more == "a" && !before.is_empty() {
                // That is no preamble, but more of the file.
                continue;
            }
            let begin = format!("{before}{begin}");
            for frame in [1000, 8192, 16 << 10, 100_000] {
                let taken = Arc::default();
                let why = read(endless(&begin, more, frame, &taken)).await;
                let why = why.expect_err("refused");
                assert_eq!(
                    why, "beside its file the form may have 65536 bytes",
                    "{begin:?} {more:?} in {frame}"
                );
                let taken = taken.load(Ordering::SeqCst);
                let most = MAX_FORM_BYTES + (FILE.len() + frame) as u64;
                assert!(taken < most, "{begin:?} {more:?} in {frame}: {taken}");
            }
        }
    }
}

/// How much of the file is in the frames that its parser is given with what comes before is no part of the limit.
#[tokio::test]
async fn exact_bytes_whatever_of_the_file_comes_with_its_head() {
    let content = vec![b'c'; 100_000];
    let fields = [
        field("album", "1"),
        field("size", "100000"),
        field("filename", "b.txt"),
        field("digest", "crc32c:00000001"),
    ];
    let head = FILE.strip_suffix("hello\r\n--\r\nworld").expect("a file");
    for fields in [&fields[..0], &fields[1..2], &fields] {
        let before = fields.concat() + head;
        let form = [before.as_bytes(), &content, b"\r\n--x--\r\n"].concat();
        for frame in [1, 1000, 16 << 10, most(), 128 << 10] {
            let (_, bytes) = read(body_of(&form, frame)).await.expect("a file");
            assert!(bytes == content);
        }
    }
}

/// The limit is met to the byte, however the form is cut.
#[tokio::test]
async fn bounded_what_comes_before_the_file_to_the_byte() {
    let head = &FILE[..FILE.find("hello").expect("a file")];
    let end = "\r\n--x--";
    let most = most() - head.len() - end.len();
    for frame in [7, 16 << 10, 128 << 10] {
        let form = |preamble: usize| format!("{}{FILE}{end}", "a".repeat(preamble));
        let whole = read(body_of(form(most).as_bytes(), frame)).await;
        assert_eq!(whole.expect("a file").1, b"hello\r\n--\r\nworld");
        let more = form(most + end.len() + 1);
        let more = read(body_of(more.as_bytes(), frame)).await;
        let why = more.expect_err("refused");
        assert_eq!(why, "beside its file the form may have 65536 bytes");
    }
}

/// A frame is asked for only by a parser that has not enough: nothing piles up over a form's many parts.
#[tokio::test]
async fn bounded_nothing_is_read_ahead_of_the_fields() {
    let fields = field("f", "1").repeat(100);
    let form = format!("{fields}{FILE}");
    let taken = Arc::new(AtomicU64::new(0));
    let body = endless(&form, "b", 8192, &taken);
    let mut asked = asked();
    let within = Duration::from_mins(1);
    let found = find_file(&mut asked, body, "x".to_owned(), within).await;
    assert!(found.is_ok());
    let most = (form.len() + 8192) as u64;
    assert!(taken.load(Ordering::SeqCst) < most);
}

/// A frame is taken only when the one before has been passed on.
#[tokio::test]
async fn bounded_the_file_is_not_read_ahead() {
    let taken = Arc::new(AtomicU64::new(0));
    let mut asked = asked();
    let body = endless(FILE, "b", 8192, &taken);
    let within = Duration::from_mins(1);
    let found = find_file(&mut asked, body, "x".to_owned(), within).await;
    let mut file = found.expect("a file");
    let mut passed = FILE.len() as u64;
    for _ in 0..30 {
        passed += file.next().await.expect("endless").expect("sound").len() as u64;
        assert!(taken.load(Ordering::SeqCst) <= passed + 8192);
    }
}

#[tokio::test(start_paused = true)]
async fn a_form_that_does_not_come_to_its_file_is_given_up() {
    let why = read(Box::pin(stream::pending())).await;
    assert_eq!(
        why.expect_err("given up"),
        "the form's file did not begin in time"
    );
}

proptest! {
    #[test]
    fn exact_bytes_whatever_the_file_and_its_frames(
        content in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'-'), Just(b'x')], 0..400),
        frame in 1..60_usize,
    ) {
        let boundary = b"\r\n--x".as_slice();
        prop_assume!(!content.windows(boundary.len()).any(|window| window == boundary));
        // A file may begin with what would be a boundary behind a line's end.
        prop_assume!(!content.starts_with(b"--x"));
        let head = b"--x\r\nContent-Disposition: form-data; name=f; filename=a\r\n\r\n".as_slice();
        let form = [head, &content, b"\r\n--x--\r\n"].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let (_, bytes) = runtime.block_on(read(body_of(&form, frame))).expect("a file");
        prop_assert_eq!(bytes, content);
    }
}
