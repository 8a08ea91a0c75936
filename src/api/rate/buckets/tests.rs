use super::*;

fn rate(per_minute: u32, burst: u32) -> Rate {
    Rate {
        per_minute: NonZeroU32::new(per_minute).expect("a rate"),
        burst: NonZeroU32::new(burst).expect("a burst"),
    }
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

/// How many are let through at once.
fn let_through(buckets: &Buckets<u32>, key: u32) -> u32 {
    let taken = (0..).take_while(|_| buckets.take(&key).is_ok());
    u32::try_from(taken.count()).expect("few")
}

#[tokio::test(start_paused = true)]
async fn a_burst_comes_at_once_and_then_it_is_the_rate() {
    for (per_minute, burst, each) in [
        (60, 1, Duration::from_secs(1)),
        (600, 100, Duration::from_millis(100)),
        (12_000, 2000, Duration::from_millis(5)),
        (7, 3, Duration::from_nanos(60_000_000_000 / 7)),
    ] {
        let buckets = Buckets::new(rate(per_minute, burst), 10);
        assert_eq!(let_through(&buckets, 1), burst);
        for _ in 0..5 {
            pass(each.saturating_sub(Duration::from_millis(2))).await;
            assert!(buckets.take(&1).is_err(), "{per_minute}: too early");
            pass(Duration::from_millis(2)).await;
            assert_eq!(let_through(&buckets, 1), 1, "{per_minute}");
        }
        pass(Duration::from_hours(1)).await;
        assert_eq!(let_through(&buckets, 1), burst, "never more than a burst");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_and_how_long_there_is_nothing_is_told() {
    let buckets = Buckets::new(rate(60, 3), 10);
    assert_eq!([(); 3].map(|()| buckets.take(&1)), [Ok(2), Ok(1), Ok(0)]);
    assert_eq!(buckets.take(&1), Err(Duration::from_secs(1)));
    pass(Duration::from_millis(400)).await;
    assert_eq!(buckets.take(&1), Err(Duration::from_millis(600)));
    pass(Duration::from_millis(600)).await;
    assert_eq!(buckets.take(&1), Ok(0));
}

#[tokio::test(start_paused = true)]
async fn keys_have_buckets_of_their_own() {
    let buckets = Buckets::new(rate(60, 5), 10);
    assert_eq!(let_through(&buckets, 1), 5);
    assert_eq!(let_through(&buckets, 2), 5);
    assert!(buckets.take(&1).is_err());
}

#[tokio::test(start_paused = true)]
async fn beyond_the_last_place_newcomers_share_a_bucket_and_the_others_keep_theirs() {
    let buckets = Buckets::new(rate(60, 2), 3);
    for key in 1..=3 {
        assert_eq!(let_through(&buckets, key), 2);
    }
    assert_eq!(buckets.take(&4), Ok(1));
    assert_eq!(buckets.take(&5), Ok(0));
    assert!(buckets.take(&6).is_err(), "they share one");
    pass(Duration::from_secs(1)).await;
    assert_eq!(buckets.take(&1), Ok(0), "it has its own");
    assert_eq!(buckets.take(&6), Ok(0), "one came back");
    assert!(buckets.take(&4).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_full_bucket_makes_place_and_one_that_is_not_never_does() {
    let buckets = Buckets::new(rate(60, 100), 20);
    assert_eq!(let_through(&buckets, 0), 100);
    for key in 1..20 {
        buckets.take(&key).expect("a place");
    }
    pass(Duration::from_secs(1)).await;
    assert_eq!(buckets.take(&0), Ok(0), "a second brings one");
    for key in 1000..1019 {
        assert_eq!(buckets.take(&key), Ok(99), "the place of one that is full");
    }
    for key in 2000..2040 {
        let _ = buckets.take(&key);
    }
    assert!(buckets.take(&0).is_err(), "it was not made anew");
}

#[tokio::test(start_paused = true)]
async fn more_keys_than_places_take_no_more_memory() {
    let buckets = Buckets::new(rate(600, 100), 1000);
    for key in 0..10_000 {
        let _ = buckets.take(&key);
    }
    let Places(taken) = buckets.limiter.into_state_store();
    assert_eq!(taken.into_inner().expect("whole").buckets.len(), 1000);
}
