//! The inbox page in a real browser: Chromium without a window, driven by `chromedriver` over
//! WebDriver (<https://www.w3.org/TR/webdriver2/>). It does and sees only what a person can, and
//! never reads the page's internal state.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command as AsyncCommand};

use crate::{until, until::DEADLINE};

/// chromedriver's output before the number of its port.
const LISTENS: &str = "started successfully on port ";
/// The name of a reference to an element (WebDriver, section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A chromedriver and its browsers. Dropping it kills all of them.
pub struct Browser {
    driver: Child,
    url: String,
    http: Client,
    // TMPDIR of the browsers.
    _folder: TempDir,
}

/// A page in a browser process of its own, which shares no storage with other pages.
pub struct Page {
    http: Client,
    session: String,
}

/// A button of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryAction {
    /// Marks it as read, or as unread again.
    ToggleRead,
    /// Dismisses it.
    Dismiss,
}

impl Browser {
    /// Starts a chromedriver on a free port and waits until it listens.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let said = folder.path().join("chromedriver.log");
        let driver = AsyncCommand::new("chromedriver")
            .arg("--port=0")
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(File::create(&said).expect("a file"))
            .stderr(Stdio::null())
            // The driver and its browsers form a process group, which is killed as a whole.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver, which is in Debian's package chromium-driver");
        let port = until(|| async {
            let text = std::fs::read_to_string(&said).expect("a file");
            let rest = text.split_once(LISTENS).and_then(|(_, rest)| rest.split_once('.'));
            rest.map(|(port, _)| port.to_owned()).ok_or(text)
        })
        .await;
        let http = Client::builder().timeout(DEADLINE).build().expect("a client");
        Self { driver, url: format!("http://127.0.0.1:{port}"), http, _folder: folder }
    }

    /// Starts a browser with an empty page.
    pub async fn open_page(&self) -> Page {
        let arguments = [
            "headless=new",
            "no-sandbox",
            "disable-gpu",
            "disable-dev-shm-usage",
            "window-size=1280,900",
        ];
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let url = format!("{}/session", self.url);
        let body = json!({ "capabilities": { "alwaysMatch": wanted } });
        let made =
            send_command(&self.http, Method::POST, &url, Some(body)).await.expect("a browser");
        let id = made["sessionId"].as_str().expect("a session");
        Page { http: self.http.clone(), session: format!("{url}/{id}") }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Killing only the driver would leave its browsers running.
        if let Some(group) = self.driver.id() {
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).status();
        }
    }
}

impl Page {
    /// Opens this URL, and waits until the page is loaded.
    pub async fn open_url(&self, url: &str) {
        self.post_command("url", json!({ "url": url })).await.expect("a page");
    }

    /// The messages in the list, from top to bottom: newest first.
    pub async fn messages(&self) -> Vec<String> {
        self.texts_at("#list li.entry .message").await
    }

    /// The messages that are shown as unread.
    pub async fn unread_messages(&self) -> Vec<String> {
        self.texts_at(r#"#list li.entry[data-read="false"] .message"#).await
    }

    /// The number of unread entries in the badge.
    pub async fn unread(&self) -> usize {
        let shown = self.texts_at("#unread").await;
        shown[0].parse().expect("a number")
    }

    /// The title of the tab.
    pub async fn title(&self) -> String {
        to_text(&self.run_script("return document.title", &[]).await.expect("a title"))
    }

    /// The text in place of an empty list; `None` if it is hidden.
    pub async fn empty_title(&self) -> Option<String> {
        self.texts_at("#empty:not([hidden]) #empty-title").await.pop()
    }

    /// `live`, `connecting`, `waiting` or `offline`.
    pub async fn connection_state(&self) -> String {
        let script = "return document.querySelector('#connection').dataset.state";
        to_text(&self.run_script(script, &[]).await.expect("a state"))
    }

    /// The URLs of the links in the list.
    pub async fn links(&self) -> Vec<String> {
        let script = "return [...document.querySelectorAll('#list a')].map((link) => link.href)";
        to_texts(&self.run_script(script, &[]).await.expect("links"))
    }

    /// Clicks this button of the entry with this message.
    pub async fn click_action(&self, message: &str, action: EntryAction) {
        let script = "const [message, action] = arguments;
            const entry = [...document.querySelectorAll('#list li.entry')]
                .find((entry) => entry.querySelector('.message').textContent === message);
            return entry?.querySelector(`[data-action=\"${action}\"]:not([aria-disabled=true])`)";
        let action = match action {
            EntryAction::ToggleRead => "toggle-read",
            EntryAction::Dismiss => "dismiss",
        };
        self.click_on(script, &[message.into(), action.into()]).await;
    }

    /// Marks all as read.
    pub async fn mark_all_read(&self) {
        self.press_button("#mark-all-read").await;
    }

    /// Waits until the page asks for a token, and enters this one.
    pub async fn give_token(&self, token: &str) {
        let script = "return document.querySelector('#token-form').hidden";
        until(|| async {
            let hidden = self.run_script(script, &[]).await.expect("a form");
            if hidden == false { Ok(()) } else { Err("the form is hidden") }
        })
        .await;
        self.write_field("#token", token).await;
        self.press_button("#token-form button").await;
    }

    /// Sends a notification with the form, and returns the page's text about the result.
    pub async fn send_with_form(&self, from: i64, to: i64, message: &str) -> String {
        self.write_field("#from", &from.to_string()).await;
        self.write_field("#to", &to.to_string()).await;
        self.write_field("#message", message).await;
        self.press_button("#send").await;
        until(|| async {
            let said = self.texts_at("#send-result").await.concat();
            if said.is_empty() { Err("no result is shown yet") } else { Ok(said) }
        })
        .await
    }

    /// Emulates a screen of 1280 by 800 points or a phone, with the dark or the light colour scheme
    /// and without scroll bars.
    pub async fn emulate_screen(&self, dark: bool, phone: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call_devtools("Emulation.setEmulatedMedia", media).await;
        let (width, height, scale) = if phone { (390, 844, 2) } else { (1280, 800, 1) };
        let screen = json!({
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone,
        });
        self.call_devtools("Emulation.setDeviceMetricsOverride", screen).await;
        self.call_devtools("Emulation.setScrollbarsHidden", json!({ "hidden": true })).await;
    }

    /// By how many points the page is wider than the screen.
    pub async fn horizontal_overflow(&self) -> i64 {
        let script = "const { scrollWidth, clientWidth } = document.documentElement;
            return scrollWidth - clientWidth";
        self.run_script(script, &[]).await.expect("a width").as_i64().expect("a number")
    }

    /// The CSS background colour of the page.
    pub async fn background_colour(&self) -> String {
        let script = "return getComputedStyle(document.body).backgroundColor";
        to_text(&self.run_script(script, &[]).await.expect("a colour"))
    }

    /// Writes the visible part of the page to this file, as PNG.
    pub async fn save_screenshot(&self, path: &Path) {
        let url = format!("{}/screenshot", self.session);
        let taken = send_command(&self.http, Method::GET, &url, None).await.expect("a screenshot");
        let png = BASE64.decode(to_text(&taken)).expect("base64");
        std::fs::write(path, png).expect("a file that can be written");
    }

    /// The console's errors since the last call: failed scripts, and violations of the page's
    /// policy. Failed requests are left out, because the tests stop the server on purpose.
    pub async fn console_errors(&self) -> Vec<String> {
        let entries =
            self.post_command("se/log", json!({ "type": "browser" })).await.expect("a log");
        let entries = entries.as_array().expect("a list").iter();
        let severe = entries.filter(|entry| entry["level"] == "SEVERE");
        severe.filter(|entry| entry["source"] != "network").map(Value::to_string).collect()
    }

    /// Replaces the content of a field.
    async fn write_field(&self, field: &str, content: &str) {
        until(|| async {
            let found = self
                .run_script("return document.querySelector(arguments[0])", &[field.into()])
                .await?;
            let path = format!("element/{}", found[ELEMENT].as_str().ok_or("no such field")?);
            self.post_command(&format!("{path}/clear"), json!({})).await?;
            self.post_command(&format!("{path}/value"), json!({ "text": content })).await?;
            // The page fills in the sender itself when it has loaded the users: check, and retry.
            let value = self.run_script("return arguments[0].value", &[found]).await?;
            if value == content { Ok(()) } else { Err(format!("{field} holds {value}")) }
        })
        .await;
    }

    async fn press_button(&self, button: &str) {
        let script = "return document.querySelector(`${arguments[0]}:not([aria-disabled=true])`)";
        self.click_on(script, &[button.into()]).await;
    }

    /// Waits until this script finds an element, and clicks it with the mouse.
    async fn click_on(&self, script: &str, arguments: &[Value]) {
        until(|| async {
            let found = self.run_script(script, arguments).await?;
            let element = found[ELEMENT].as_str().ok_or("no element to click")?;
            self.post_command(&format!("element/{element}/click"), json!({})).await
        })
        .await;
    }

    async fn texts_at(&self, selector: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])]
            .map((element) => element.textContent)";
        to_texts(&self.run_script(script, &[selector.into()]).await.expect("texts"))
    }

    async fn run_script(&self, script: &str, arguments: &[Value]) -> Result<Value, String> {
        self.post_command("execute/sync", json!({ "script": script, "args": arguments })).await
    }

    async fn call_devtools(&self, what: &str, parameters: Value) {
        let body = json!({ "cmd": what, "params": parameters });
        self.post_command("goog/cdp/execute", body)
            .await
            .expect("an answer of the developer tools");
    }

    async fn post_command(&self, path: &str, body: Value) -> Result<Value, String> {
        let url = format!("{}/{path}", self.session);
        send_command(&self.http, Method::POST, &url, Some(body)).await
    }
}

async fn send_command(
    http: &Client,
    method: Method,
    url: &str,
    body: Option<Value>,
) -> Result<Value, String> {
    let mut request = http.request(method, url);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.map_err(|error| error.to_string())?;
    let done = response.status().is_success();
    let answer: Value = response.json().await.map_err(|error| error.to_string())?;
    let value = answer["value"].clone();
    // The rest of an error is the driver's stack trace.
    if done { Ok(value) } else { Err(format!("{}: {}", value["error"], value["message"])) }
}

fn to_text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn to_texts(value: &Value) -> Vec<String> {
    value.as_array().expect("a list").iter().map(to_text).collect()
}
