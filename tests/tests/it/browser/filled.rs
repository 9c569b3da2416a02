//! A filled inbox in the light and the dark colour scheme, and on a phone. The screenshots for the
//! README are saved to the folder that TEST_SCREENSHOTS names.

use std::path::PathBuf;

use e2e::{
    browser::{Browser, EntryAction, Page},
    until,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::installation::{Foreign, Installation};

/// Oldest first: age in minutes, sender, category, message, link.
const RECEIVED: [(i64, i64, &str, &str, &str); 9] = [
    (4 * 24 * 60, 2, "follow", "Bruno started following you.", ""),
    (
        2 * 24 * 60,
        4,
        "album",
        "Lena shared the album “Lisbon in May” with you.",
        "https://photos.example.com/albums/lisbon-in-may",
    ),
    (
        27 * 60,
        3,
        "event",
        "Rick invited you to “Board games on Friday”, 7 pm at his place. Bring a game that you would like to play!",
        "https://calendar.example.com/events/board-games",
    ),
    (
        9 * 60,
        2,
        "comment",
        "Bruno replied to your comment: “Agreed, let’s ship it on Tuesday.”",
        "https://docs.example.com/roadmap#comment-12",
    ),
    (3 * 60, 4, "like", "Lena likes your photo.", ""),
    (
        48,
        3,
        "comment",
        "Rick commented on your photo: “Where was this taken? The light is wonderful.”",
        "https://photos.example.com/p/1842",
    ),
    (
        21,
        2,
        "mention",
        "Bruno mentioned you in “Release notes”.",
        "https://docs.example.com/release-notes",
    ),
    (6, 4, "message", "Lunch at noon? The new place around the corner has a free table.", ""),
    (0, 3, "like", "Rick and 12 others like your photo.", ""),
];
/// Read notifications, counted from the oldest.
const READ_COUNT: usize = 5;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: task test:browser"]
async fn a_filled_inbox_fits_a_phone_and_is_dark_where_that_is_wanted() {
    let installation = Installation::standalone().await;
    installation.consumer.kill().await.expect("a running process");
    installation.append_foreign(&RECEIVED.map(foreign_record)).await;
    installation.consumer.start().expect("the program");
    installation.await_ready().await;

    let browser = Browser::start().await;
    let page = browser.open_page().await;
    page.emulate_screen(false, false).await;
    page.open_url(&installation.page_url(1)).await;
    for (_, _, _, message, _) in &RECEIVED[..READ_COUNT] {
        page.click_action(message, EntryAction::ToggleRead).await;
    }
    expect_filled_page(&page).await;
    let mut backgrounds = Vec::new();
    for (name, dark, phone) in [
        ("inbox-light.png", false, false),
        ("inbox-dark.png", true, false),
        ("inbox-phone.png", false, true),
    ] {
        page.emulate_screen(dark, phone).await;
        // A new page has no highlight of new or clicked entries.
        page.open_url(&installation.page_url(1)).await;
        expect_filled_page(&page).await;
        assert_eq!(page.horizontal_overflow().await, 0, "{name} is wider than its screen");
        backgrounds.push(page.background_colour().await);
        if let Some(folder) = std::env::var_os("TEST_SCREENSHOTS") {
            page.save_screenshot(&PathBuf::from(folder).join(name)).await;
        }
    }
    assert_ne!(backgrounds[0], backgrounds[1], "by day and in the dark");
    assert_eq!(backgrounds[0], backgrounds[2]);
    assert_eq!(
        page.links().await.len(),
        RECEIVED.iter().filter(|(.., link)| !link.is_empty()).count()
    );
    assert_eq!(page.console_errors().await, [""; 0]);
}

/// Waits until the page is live and shows all of [`RECEIVED`], with the oldest as read.
async fn expect_filled_page(page: &Page) {
    let messages = RECEIVED.map(|(_, _, _, message, _)| message);
    until(|| async {
        let seen =
            (page.connection_state().await, page.messages().await, page.unread_messages().await);
        let (connection, listed, unread) = &seen;
        let so = connection == "live"
            && listed.iter().rev().eq(&messages)
            && unread.iter().rev().eq(&messages[READ_COUNT..]);
        if so { Ok(()) } else { Err(seen) }
    })
    .await;
}

fn foreign_record(
    (minutes, from, category, message, link): (i64, i64, &str, &str, &str),
) -> Foreign {
    let name = ["Emma", "Bruno", "Rick", "Lena"][usize::try_from(from - 1).expect("a user")];
    let mut value = json!({
        "from": { "id": from, "name": name },
        "to": { "id": 1, "name": "Emma" },
        "message": message,
        "category": category,
    });
    if !link.is_empty() {
        value["link"] = Value::from(link);
    }
    (1, value, Some(Timestamp::now() - SignedDuration::from_mins(minutes)))
}
