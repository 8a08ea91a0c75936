//! What every [`Catalog`] has to do, line by line of its contract.
//!
//! An implementation runs it with [`suite`], giving a function that makes an empty catalog. What is particular to one
//! implementation is tested beside it.

pub(crate) mod assembling;
pub(crate) mod cleaning;
pub(crate) mod concat;
pub(crate) mod creating;
pub(crate) mod direct;
pub(crate) mod ending;
pub(crate) mod quota;
pub(crate) mod sharing;
pub(crate) mod tokens;
pub(crate) mod writing;

use std::sync::Arc;

use super::{
    Assemble, Catalog, CatalogError, Commit, Completed, Created, Intent, IntentKind, NewUpload,
    Result,
};
use crate::model::digest::Digests;
use crate::model::plan::MIN_PART_BYTES;
use crate::model::upload::{Declared, Epoch, HashPoint, PartChecksum, Protocol, Role, Snapshot};
use crate::model::{
    ByteRange, Digest, DigestAlgorithm, Length, Object, Offset, PartNumber, PartReceipt, Plan,
    RangeSet, Timestamp, Upload, UploadId, UploadKey, UploadState,
};

/// One test for each promise. `$make` is an async function that returns an empty catalog and whatever has to live as
/// long as it.
macro_rules! suite {
    ($make:path) => {
        $crate::catalog::conformance::suite! { @tests $make;
            creating: a_new_upload_is_found_as_it_was_declared,
            creating: an_id_is_taken_once,
            creating: a_repeated_creation_finds_the_upload_under_a_new_key,
            creating: another_request_under_the_same_idempotency_key_is_a_mismatch,
            creating: a_repeated_creation_of_what_is_in_use_changes_nothing,
            creating: an_expired_idempotency_record_counts_as_none,
            creating: an_expired_upload_is_not_found_by_a_repeated_creation,
            creating: racing_creations_with_one_idempotency_key_make_one_upload,
            writing: a_claim_puts_the_writers_before_it_out,
            writing: claims_that_race_get_different_epochs,
            writing: an_ended_upload_is_claimed_as_it_is,
            writing: a_commit_is_remembered_whole,
            writing: a_commit_without_news_keeps_what_was_there,
            writing: a_commit_repeated_changes_nothing,
            writing: a_commit_that_fails_leaves_nothing,
            writing: bytes_beyond_the_length_are_refused,
            writing: ranges_come_back_as_the_model_has_them,
            writing: writers_that_commit_at_once_are_all_remembered,
            writing: one_that_fails_among_many_fails_alone,
            writing: nothing_but_an_open_upload_takes_a_commit,
            assembling: assembly_begins_when_every_byte_is_there,
            assembling: assembly_does_not_begin_otherwise,
            assembling: digests_join_what_was_declared,
            assembling: an_assembly_is_due_when_nobody_holds_it,
            assembling: an_assembly_is_claimed_by_one,
            assembling: an_assembly_put_off_counts_the_attempt,
            assembling: an_assembly_that_is_held_on_counts_no_attempt,
            assembling: a_key_has_one_upload,
            assembling: an_assembly_begins_with_the_last_bytes,
            assembling: an_assembly_begins_without_a_key_that_is_taken,
            assembling: a_key_is_not_claimed_for_what_has_ended,
            ending: completing_happens_once,
            ending: completing_under_a_key_of_another_is_refused,
            ending: completing_needs_an_assembly_under_the_epoch,
            ending: failing_happens_once_and_gives_the_key_back,
            ending: aborting_can_be_repeated,
            ending: what_assembles_or_has_ended_is_not_aborted,
            ending: only_what_is_past_expires,
            ending: one_is_expired_once_among_many_at_once,
            ending: expired_ones_are_found_oldest_first,
            ending: expired_ones_are_found_in_pages,
            ending: an_ending_from_outside_forgets_the_bytes,
            ending: endings_that_race_are_one,
            concat: a_final_upload_assembles_with_its_last_part,
            concat: a_final_upload_of_complete_parts_assembles_at_once,
            concat: a_final_upload_tells_its_length_when_all_its_parts_have_one,
            concat: a_final_upload_is_made_of_partial_ones_that_go_on,
            concat: a_part_that_ends_fails_the_final_uploads_that_wait,
            concat: parts_are_discarded_when_they_expired_and_nobody_needs_them,
            concat: parts_are_not_purged_before_they_are_discarded,
            concat: a_terminated_upload_leaves_its_object_to_be_deleted,
            concat: only_what_has_an_end_to_undo_is_terminated,
            direct: an_upload_is_staged_before_anything_is_announced,
            direct: a_later_url_for_a_part_is_good_for_longer,
            direct: urls_are_forgotten_when_they_are_closed,
            direct: urls_are_forgotten_when_the_upload_ends,
            direct: only_the_owner_of_what_takes_bytes_hands_out_urls,
            sharing: an_object_is_shared_by_uploads_of_the_same_bytes,
            sharing: what_is_not_shared_is_not_found_by_its_content,
            sharing: another_object_is_never_recorded_over_a_shared_one,
            sharing: a_shared_object_goes_with_the_last_that_names_it,
            sharing: letting_go_without_the_object_leaves_it,
            sharing: an_address_is_free_again_when_it_is_cleared_by_one,
            sharing: an_address_is_not_cleared_under_one_that_goes_on,
            sharing: an_upload_of_what_is_there_is_completed_at_once,
            sharing: what_was_shared_and_is_gone_is_not_recorded_again,
            sharing: a_creation_completed_at_once_can_be_repeated,
            sharing: an_address_is_of_who_brings_the_object,
            quota: each_limit_lets_in_what_it_allows_and_no_more,
            quota: a_day_begins_anew_and_says_when,
            quota: devices_subjects_and_spaces_are_counted_apart,
            quota: what_is_open_is_what_got_bytes_lately,
            quota: parts_of_an_upload_are_one_open_upload,
            quota: an_upload_made_of_a_part_many_times_is_charged_for_it,
            quota: what_a_token_has_brought_it_has_brought,
            quota: a_token_without_limits_has_no_account,
            quota: what_is_completed_at_once_is_held_to_the_limits,
            quota: racing_creations_never_pass_a_limit_together,
            quota: an_unknown_length_is_charged_as_it_arrives,
            quota: what_ends_is_settled,
            quota: an_object_that_stays_goes_on_being_counted,
            quota: an_owner_is_found_beside_the_key,
            quota: a_record_stays_as_long_as_its_space_says,
            cleaning: an_announcement_stays_as_it_was,
            cleaning: a_multipart_upload_is_named,
            cleaning: what_is_settled_is_gone,
            cleaning: leftovers_are_of_ended_uploads_in_pages,
            cleaning: purging_takes_what_ended_before_and_left_nothing,
            cleaning: a_purge_leaves_the_object_and_its_key,
            cleaning: records_are_purged_by_their_age,
            cleaning: open_uploads_are_told_from_ended_ones,
            cleaning: a_ping_commits,
            tokens: keys_are_found_as_they_were_added,
            tokens: a_key_is_added_once,
            tokens: a_revoked_key_keeps_its_first_time,
            tokens: other_tokens_are_revoked_by_their_ids,
            tokens: nothing_is_read_again_that_has_not_changed,
            tokens: revocations_are_forgotten_when_it_is_time,
            tokens: there_is_one_link_secret,
        }
    };
    (@tests $make:path; $($theme:ident: $name:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (catalog, _keep) = $make().await;
                $crate::catalog::conformance::$theme::$name(catalog).await;
            }
        )*
    };
}
pub(crate) use suite;

type Shared = Arc<dyn Catalog>;

const START: Timestamp = Timestamp(1_000_000);
const EXPIRY: Timestamp = Timestamp(2_000_000);
const LATER: Timestamp = Timestamp(1_500_000);
const FIRST: Epoch = Epoch(1);

/// Checks for [`CatalogError::Stale`].
fn assert_stale<T: std::fmt::Debug>(result: Result<T>) {
    match result {
        Err(CatalogError::Stale) => {}
        other => panic!("not stale: {other:?}"),
    }
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end).expect("not empty")
}

fn set(ranges: &[(u64, u64)]) -> RangeSet {
    ranges
        .iter()
        .map(|(start, end)| range(*start, *end))
        .collect()
}

fn digest(algorithm: DigestAlgorithm, byte: u8) -> Digest {
    Digest::new(algorithm, vec![byte; algorithm.len()]).expect("of its length")
}

/// A creation that declares all that can be.
pub(crate) fn new_upload() -> NewUpload {
    let id = UploadId::generate();
    NewUpload {
        id,
        key_hash: UploadKey::generate().hash(),
        owner: crate::model::UploadOwner::default(),
        max_size: Some(Length(1 << 40)),
        typed: true,
        retention: None,
        limits: crate::model::Limits::new(),
        idle_since: Timestamp(0),
        protocol: Protocol::Native,
        role: Role::Whole,
        parts: Vec::new(),
        sealed: Some(b"sealed".to_vec()),
        declared: Declared {
            filename: Some("a \"name\" with ✂.jpg".to_owned()),
            content_type: Some("image/jpeg".to_owned()),
            metadata: [("album".to_owned(), "Zoë's".to_owned())].into(),
            metadata_field: Some("album Wm/Dq8OpJ3M=".to_owned()),
            digests: Digests::from_iter([digest(DigestAlgorithm::Md5, 7)]),
            sequential: true,
        },
        length: None,
        plan: Plan::Growing {
            base: MIN_PART_BYTES,
        },
        store_key: format!("media/{id}").parse().expect("a safe key"),
        now: START,
        expires_at: EXPIRY,
        instant: None,
        held_until: EXPIRY,
    }
}

/// How an upload is brought together whose key is claimed apart.
fn until(until: Timestamp) -> Assemble {
    Assemble { until, key: None }
}

/// A commit that says nothing.
pub(crate) fn nothing_of(id: UploadId, epoch: Epoch) -> Commit {
    Commit {
        id,
        epoch,
        received: Vec::new(),
        parts: Vec::new(),
        closed: Vec::new(),
        hash: None,
        length: None,
        readback: false,
        boot: None,
        now: START,
        expires_at: None,
        assemble: None,
    }
}

/// A commit that says everything, of the bytes `[0, length)`.
fn all_of(id: UploadId, epoch: Epoch, length: u64) -> Commit {
    Commit {
        received: vec![range(0, length)],
        parts: vec![receipt(1, 0, length)],
        hash: Some(HashPoint {
            offset: Offset(length),
            state: vec![1, 2, 3],
        }),
        length: Some(Length(length)),
        readback: true,
        boot: Some("this boot".to_owned()),
        now: LATER,
        expires_at: Some(EXPIRY),
        ..nothing_of(id, epoch)
    }
}

fn receipt(number: u32, start: u64, end: u64) -> PartReceipt {
    PartReceipt {
        number: PartNumber(number),
        range: range(start, end),
        etag: format!("\"etag {number}\""),
        checksum: Some((PartChecksum::Crc64Nvme, "AAAAAAAAAAA=".to_owned())),
    }
}

fn intent(upload: UploadId, kind: IntentKind) -> Intent {
    Intent {
        upload,
        kind,
        key: format!("staging/{upload}").parse().expect("a safe key"),
        store_upload_id: None,
        created_at: START,
    }
}

fn object_of(upload: &Upload) -> Object {
    Object {
        key: upload.store_key.clone(),
        first: upload.id,
        space: crate::model::SpaceName::default(),
        shared: false,
        size: Length(10),
        content_type: Some("image/jpeg".to_owned()),
        digests: Digests::from_iter([digest(DigestAlgorithm::Sha256, 9)]),
        etag: "\"whole\"".to_owned(),
        verified: crate::model::upload::Verified::Stream,
        store_checked: true,
    }
}

/// A new upload, pending.
pub(crate) async fn pending(catalog: &Shared) -> Upload {
    match catalog.create(new_upload(), None).await {
        Ok(Created::New(upload)) => upload,
        other => panic!("not created: {other:?}"),
    }
}

/// A new upload that has all of its ten bytes.
pub(crate) async fn uploading(catalog: &Shared) -> Upload {
    let upload = pending(catalog).await;
    catalog
        .commit(all_of(upload.id, FIRST, 10))
        .await
        .expect("committed");
    upload
}

/// A new upload that somebody assembles until [`LATER`].
pub(crate) async fn assembling(catalog: &Shared) -> Upload {
    let upload = uploading(catalog).await;
    catalog
        .begin_assembly(
            upload.id,
            FIRST,
            Length(10),
            Digests::default(),
            until(LATER),
            START,
        )
        .await
        .expect("begun");
    upload
}

/// A new upload that was completed at [`LATER`].
pub(crate) async fn completed(catalog: &Shared) -> Upload {
    let upload = assembling(catalog).await;
    catalog
        .complete(upload.id, FIRST, object_of(&upload), vec![], LATER)
        .await
        .expect("completed");
    upload
}

async fn load(catalog: &Shared, id: UploadId) -> Snapshot {
    catalog
        .load(id)
        .await
        .expect("read")
        .expect("the upload is there")
}

async fn state(catalog: &Shared, id: UploadId) -> UploadState {
    load(catalog, id).await.upload.state
}

/// How many events there were. They are gone afterwards: the trait has no other way to look at them.
async fn drain_events(catalog: &Shared) -> u64 {
    catalog
        .purge_records(Timestamp(i64::MIN), Timestamp(i64::MAX), 1_000)
        .await
        .expect("purged")
}
