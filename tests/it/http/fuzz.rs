//! What is kept of the corpus of whole requests.

#[path = "../../../fuzz/src/whole_request.rs"]
mod whole_request;

use whole_request::Ground;

#[test]
fn sealed_whatever_bytes_come() {
    let mut ground = Ground::start();
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/whole_request");
    for file in std::fs::read_dir(corpus).unwrap() {
        let path = file.unwrap().path();
        println!("{}", path.display());
        let bytes = std::fs::read(&path).unwrap();
        ground.feed(&bytes);
        // Cut anywhere it is no request, and harms as little.
        for cut in (1..bytes.len()).step_by(bytes.len().div_ceil(8)) {
            ground.feed(&bytes[..cut]);
        }
    }
    ground.look_around();
}
