//! The inbox page, in two browsers side by side, while what serves it is killed and comes back.
//! On a standalone, and on a real Kafka and PostgreSQL.

mod installation;
mod filled;

use e2e::{
    browser::{Action, Browser, Page},
    process::Standalone,
    tokens::{Issuer, KeyFiles},
    until,
};
use serde_json::json;

use installation::Installation;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: task test:browser"]
async fn two_pages_agree_and_survive_a_kill() {
    agree_and_survive(Installation::standalone().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium, Kafka and PostgreSQL: task test:browser"]
async fn real_two_pages_agree_and_survive_a_kill() {
    agree_and_survive(Installation::real().await).await;
}

async fn agree_and_survive(installation: Installation) {
    let browser = Browser::start().await;
    let pages = [browser.page().await, browser.page().await];
    let [a, b] = &pages;
    for page in &pages {
        page.open(&installation.page(1)).await;
    }
    both_show(&pages, &[], &[]).await;

    let follows = "Bruno started following you.";
    assert_eq!(a.compose(2, 1, follows).await, "Sent to Emma.");
    both_show(&pages, &[follows], &[follows]).await;
    a.click(follows, Action::ToggleRead).await;
    both_show(&pages, &[follows], &[]).await;
    b.click(follows, Action::ToggleRead).await;
    both_show(&pages, &[follows], &[follows]).await;

    let markup = "<b>Lena</b> <img src=x onerror=alert(1)> & friends";
    installation.send(4, 1, markup).await;
    both_show(&pages, &[markup, follows], &[markup, follows]).await;
    a.mark_all_read().await;
    both_show(&pages, &[markup, follows], &[]).await;
    b.click(follows, Action::Dismiss).await;
    both_show(&pages, &[markup], &[]).await;

    installation.consumer.kill().await.expect("a running process");
    for page in &pages {
        until(|| async {
            let state = page.connection().await;
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
    installation.append(&[(1, record, None)]).await;
    away.insert(0, tricky);
    messages.splice(0..0, away.iter().copied());
    installation.consumer.start().expect("the program");
    both_show(&pages, &messages, &away).await;

    let back = "Lena shared an album with you.";
    assert_eq!(b.compose(4, 1, back).await, "Sent to Emma.");
    messages.insert(0, back);
    away.insert(0, back);
    both_show(&pages, &messages, &away).await;
    for page in &pages {
        assert_eq!(page.links().await, [""; 0]);
        assert_eq!(page.console().await, [""; 0]);
    }
}

/// Waits until both pages are live and show exactly these messages, newest first, and exactly
/// those of them as unread, in the list, the badge and the title.
async fn both_show(pages: &[Page; 2], messages: &[&str], unread: &[&str]) {
    for page in pages {
        until(|| async {
            let seen = (
                page.connection().await,
                page.messages().await,
                page.unread_messages().await,
                page.unread().await,
                page.title().await,
                page.empty().await,
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
    let issuer = Issuer::secret(SECRET);
    let flags = ["--auth-secret-file", &files.secret(SECRET)];
    let standalone = Standalone::start_with(folder.path(), &flags).await;
    let browser = Browser::start().await;
    let page = browser.page().await;
    page.open(&format!("{}/?user=1", standalone.consumer.replace("127.0.0.1", "localhost"))).await;
    page.give_token(&issuer.token(Some("1"), "send")).await;
    let live = async |messages: &[&str]| {
        until(|| async {
            let seen = (page.connection().await, page.messages().await);
            if seen.0 == "live" && seen.1 == messages { Ok(()) } else { Err(seen) }
        })
        .await;
    };
    live(&[]).await;
    // To oneself, because nobody else's inbox is open to this token.
    assert_eq!(page.compose(1, 1, "A note to myself").await, "Sent to Emma.");
    live(&["A note to myself"]).await;
    page.mark_all_read().await;
    until(|| async {
        let unread = page.unread().await;
        if unread == 0 { Ok(()) } else { Err(unread) }
    })
    .await;
}
