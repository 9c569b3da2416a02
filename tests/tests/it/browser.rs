//! The inbox page in two browsers, while its server is killed and restarted; on a standalone, and
//! on a real Kafka and PostgreSQL.

mod installation;
mod filled;

use e2e::{
    browser::{Browser, EntryAction, Page},
    process::Standalone,
    tokens::{Issuer, KeyFiles},
    until,
};
use serde_json::json;

use installation::Installation;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: task test:browser"]
async fn two_pages_agree_and_survive_a_kill() {
    expect_agreement_after_kill(Installation::standalone().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium, Kafka and PostgreSQL: task test:browser"]
async fn real_two_pages_agree_and_survive_a_kill() {
    expect_agreement_after_kill(Installation::real().await).await;
}

async fn expect_agreement_after_kill(installation: Installation) {
    let browser = Browser::start().await;
    let pages = [browser.open_page().await, browser.open_page().await];
    let [a, b] = &pages;
    for page in &pages {
        page.open_url(&installation.page_url(1)).await;
    }
    expect_both_pages(&pages, &[], &[]).await;

    let follows = "Bruno started following you.";
    assert_eq!(a.send_with_form(2, 1, follows).await, "Sent to Emma.");
    expect_both_pages(&pages, &[follows], &[follows]).await;
    a.click_action(follows, EntryAction::ToggleRead).await;
    expect_both_pages(&pages, &[follows], &[]).await;
    b.click_action(follows, EntryAction::ToggleRead).await;
    expect_both_pages(&pages, &[follows], &[follows]).await;

    let markup = "<b>Lena</b> <img src=x onerror=alert(1)> & friends";
    installation.send(4, 1, markup).await;
    expect_both_pages(&pages, &[markup, follows], &[markup, follows]).await;
    a.mark_all_read().await;
    expect_both_pages(&pages, &[markup, follows], &[]).await;
    b.click_action(follows, EntryAction::Dismiss).await;
    expect_both_pages(&pages, &[markup], &[]).await;

    installation.consumer.kill().await.expect("a running process");
    for page in &pages {
        until(|| async {
            let state = page.connection_state().await;
            if state == "live" { Err(state) } else { Ok(()) }
        })
        .await;
        assert_eq!(page.messages().await, [markup], "what is known stays in view");
    }
    let mut messages = vec![markup];
    let mut away = Vec::new();
    if installation.still_sends() {
        for message in ["Rick commented on your photo.", "Rick likes your photo."] {
            installation.send(3, 1, message).await;
            away.insert(0, message);
        }
    }
    let tricky = "A link that must not be one";
    let record = json!({
        "from": { "id": 3, "name": "Rick" },
        "to": { "id": 1, "name": "Emma" },
        "message": tricky,
        "link": "javascript:alert(1)",
    });
    installation.append_foreign(&[(1, record, None)]).await;
    away.insert(0, tricky);
    messages.splice(0..0, away.iter().copied());
    installation.consumer.start().expect("the program");
    expect_both_pages(&pages, &messages, &away).await;

    let back = "Lena shared an album with you.";
    assert_eq!(b.send_with_form(4, 1, back).await, "Sent to Emma.");
    messages.insert(0, back);
    away.insert(0, back);
    expect_both_pages(&pages, &messages, &away).await;
    for page in &pages {
        assert_eq!(page.links().await, [""; 0]);
        assert_eq!(page.console_errors().await, [""; 0]);
    }
}

/// Waits until both pages are live and show exactly these messages, newest first, and exactly the
/// `unread` ones as unread, in the list, the badge and the title.
async fn expect_both_pages(pages: &[Page; 2], messages: &[&str], unread: &[&str]) {
    for page in pages {
        until(|| async {
            let seen = (
                page.connection_state().await,
                page.messages().await,
                page.unread_messages().await,
                page.unread().await,
                page.title().await,
                page.empty_title().await,
            );
            let (connection, listed, not_read, badge, title, empty) = &seen;
            let titled = match unread.len() {
                0 => title.starts_with("Inbox"),
                count => title.starts_with(&format!("({count}) Inbox")),
            };
            let so = connection == "live"
                && listed == messages
                && not_read == unread
                && *badge == unread.len()
                && titled
                && empty.as_deref() == messages.is_empty().then_some("All clear");
            if so { Ok(()) } else { Err(seen) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: task test:browser"]
async fn a_page_asks_for_a_token_and_shows_what_it_opens() {
    const SECRET: &str = "a secret of at least 32 bytes, which this is";
    let (files, folder) = (KeyFiles::new(), tempfile::tempdir().expect("a folder"));
    let issuer = Issuer::with_secret(SECRET);
    let flags = ["--auth-secret-file", &files.write_secret(SECRET)];
    let standalone = Standalone::start_with(folder.path(), &flags).await;
    let browser = Browser::start().await;
    let page = browser.open_page().await;
    page.open_url(&format!("{}/?user=1", standalone.consumer.replace("127.0.0.1", "localhost")))
        .await;
    page.give_token(&issuer.issue_token(Some("1"), "send")).await;
    let live = async |messages: &[&str]| {
        until(|| async {
            let seen = (page.connection_state().await, page.messages().await);
            if seen.0 == "live" && seen.1 == messages { Ok(()) } else { Err(seen) }
        })
        .await;
    };
    live(&[]).await;
    // From the user to themselves: the token opens only their own inbox.
    assert_eq!(page.send_with_form(1, 1, "A note to myself").await, "Sent to Emma.");
    live(&["A note to myself"]).await;
    page.mark_all_read().await;
    until(|| async {
        let unread = page.unread().await;
        if unread == 0 { Ok(()) } else { Err(unread) }
    })
    .await;
}
