//! What a sequence is: where it runs, and what is done in it. And how sequences are drawn.

use jumar::store::call::Call;
use proptest::prelude::*;

use crate::weather::{Fault, Struck};

/// A sequence. Its `Debug` is what a person reads when it fails.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) setup: Setup,
    pub(crate) ops: Vec<Op>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) store: Kind,
    /// The size of a part, in bytes.
    pub(crate) cell: u64,
    /// The spool takes all that may come.
    pub(crate) roomy: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    Bucket,
}

/// The protocol that a request speaks. An upload may be spoken of in any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Native,
    Tus,
    Ietf,
}

/// Where a chunk begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Where the client last heard that the upload ends.
    Offset,
    Byte(u32),
}

/// What is special about a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Plain,
    /// It comes with its digest.
    Checked,
    /// A byte of it is wrong, and it comes with the right one's digest.
    Corrupt,
    /// It breaks off after so many 256ths.
    Cut(u8),
    /// Nothing comes any more after so many 256ths, and the connection stays.
    Stalls(u8),
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The client waits for the answer, and hears it.
    Heard,
    /// It goes on with other things, and hears the answer when it comes.
    Beside,
    /// The answer is lost.
    Unheard,
    /// It never arrives.
    Lost,
    /// The client goes away after so many milliseconds.
    HangsUp(u16),
}

/// Uploads are named by a number that is taken modulo how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Create {
        api: Api,
        len: u32,
        known: bool,
        digest: Option<bool>,
        first: u32,
        fate: Fate,
    },
    Chunk {
        upload: u8,
        api: Api,
        at: At,
        len: u32,
        frame: u16,
        body: Body,
        fate: Fate,
    },
    Status {
        upload: u8,
        api: Api,
    },
    /// All who write are to end, and the client asks how far it got.
    Halt {
        upload: u8,
    },
    Complete {
        upload: u8,
        fate: Fate,
    },
    Abort {
        upload: u8,
        api: Api,
        fate: Fate,
    },
    WrongKey {
        upload: u8,
        api: Api,
    },
    Prune,
    /// Time passes, in milliseconds, and what is on its way goes on.
    Wait(u16),
    /// Time passes in which nothing happens, in seconds.
    Pass(u32),
    /// What runs beside comes to its end first.
    Join,
    Strike {
        struck: Struck,
        skip: u8,
        fault: Fault,
    },
    /// The process dies with the nth call of catalog or store from now on.
    Crash {
        calls: u8,
        after: bool,
    },
    /// The process ends in good order, and another one starts.
    Restart,
    StaleLists(bool),
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    let setup = (
        prop_oneof![Just(Kind::Folder), Just(Kind::Bucket), Just(Kind::Bucket)],
        prop_oneof![Just(4096_u64), Just(1000), Just(16_384), Just(30_000)],
        prop::bool::weighted(0.8),
    )
        .prop_map(|(store, cell, roomy)| Setup { store, cell, roomy });
    // Something has to be there for the rest to be about.
    let begun = prop::collection::vec(create(), 1..4);
    let ops = (begun, prop::collection::vec(op(), 3..26));
    (setup, ops).prop_map(|(setup, (mut ops, more))| {
        ops.extend(more);
        Case { setup, ops }
    })
}

fn api() -> impl Strategy<Value = Api> {
    prop_oneof![Just(Api::Native), Just(Api::Tus), Just(Api::Ietf)]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Heard),
        5 => Just(Fate::Beside),
        1 => Just(Fate::Unheard),
        1 => Just(Fate::Lost),
        2 => (0_u16..400).prop_map(Fate::HangsUp),
    ]
}

/// Sizes around the borders of cells, buffers and frames.
fn size() -> impl Strategy<Value = u32> {
    prop_oneof![
        1 => Just(0_u32),
        2 => 1_u32..100,
        4 => 100_u32..10_000,
        3 => 10_000_u32..100_000,
        3 => (1_u32..12, prop_oneof![Just(1000_u32), Just(4096), Just(16_384)], -1_i32..=1)
            .prop_map(|(n, unit, off)| (n * unit).min(98_304).saturating_add_signed(off)),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        8 => Just(Body::Plain),
        2 => Just(Body::Checked),
        2 => Just(Body::Corrupt),
        4 => any::<u8>().prop_map(Body::Cut),
        1 => any::<u8>().prop_map(Body::Stalls),
    ]
}

fn strike() -> impl Strategy<Value = Op> {
    let calls = prop_oneof![
        Just(Call::Put),
        Just(Call::PutPart),
        Just(Call::Begin),
        Just(Call::Finish),
        Just(Call::Abort),
        Just(Call::MultipartOf),
        Just(Call::Head),
        Just(Call::Read),
        Just(Call::Delete),
        Just(Call::Open),
        Just(Call::WriteAt),
        Just(Call::ReadAt),
        Just(Call::Publish),
        Just(Call::Discard),
    ];
    let fault = prop_oneof![
        Just(Fault::Refused),
        Just(Fault::AnswerLost),
        Just(Fault::Late),
        Just(Fault::AnswerLate),
    ];
    let any_call = (calls, 0_u8..3, fault).prop_map(|(call, skip, fault)| Op::Strike {
        struck: Struck::Store(call),
        skip,
        fault,
    });
    let gone = (
        prop_oneof![Just(Call::PutPart), Just(Call::Finish)],
        0_u8..3,
    )
        .prop_map(|(call, skip)| Op::Strike {
            struck: Struck::Store(call),
            skip,
            fault: Fault::NotFound,
        });
    let catalog = (
        0_u8..12,
        prop_oneof![Just(Fault::Refused), Just(Fault::AnswerLost)],
    )
        .prop_map(|(skip, fault)| Op::Strike {
            struck: Struck::Catalog,
            skip,
            fault,
        });
    prop_oneof![4 => any_call, 1 => gone, 3 => catalog]
}

fn create() -> impl Strategy<Value = Op> {
    (
        api(),
        size(),
        any::<bool>(),
        prop::option::weighted(0.3, prop::bool::weighted(0.8)),
        size(),
        fate(),
    )
        .prop_map(|(api, len, known, digest, first, fate)| Op::Create {
            api,
            len,
            known,
            digest,
            first,
            fate,
        })
}

fn op() -> impl Strategy<Value = Op> {
    let upload = || 0_u8..3;
    let at = prop_oneof![3 => Just(At::Offset), 2 => size().prop_map(At::Byte)];
    let frame = prop_oneof![Just(700_u16), Just(4096), Just(10_000), 1_u16..30_000];
    let chunk = (upload(), api(), at, size(), frame, body(), fate()).prop_map(
        |(upload, api, at, len, frame, body, fate)| Op::Chunk {
            upload,
            api,
            at,
            len,
            frame,
            body,
            fate,
        },
    );
    prop_oneof![
        2 => create(),
        16 => chunk,
        3 => (upload(), api()).prop_map(|(upload, api)| Op::Status { upload, api }),
        1 => upload().prop_map(|upload| Op::Halt { upload }),
        3 => (upload(), fate()).prop_map(|(upload, fate)| Op::Complete { upload, fate }),
        1 => (upload(), api(), fate()).prop_map(|(upload, api, fate)| Op::Abort { upload, api, fate }),
        1 => (upload(), api()).prop_map(|(upload, api)| Op::WrongKey { upload, api }),
        1 => Just(Op::Prune),
        2 => (0_u16..3000).prop_map(Op::Wait),
        1 => prop_oneof![1_u32..120, 120_u32..4000, Just(90_000_u32)].prop_map(Op::Pass),
        2 => Just(Op::Join),
        6 => strike(),
        2 => (0_u8..25, any::<bool>()).prop_map(|(calls, after)| Op::Crash { calls, after }),
        1 => Just(Op::Restart),
        1 => any::<bool>().prop_map(Op::StaleLists),
    ]
}
