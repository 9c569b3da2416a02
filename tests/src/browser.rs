//! The inbox page in a real browser: Chromium without a window, driven by `chromedriver` over
//! WebDriver (<https://www.w3.org/TR/webdriver2/>). It owns what a person can see there and do
//! there, and never looks at what the page keeps behind it.

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

/// What chromedriver says when it listens, before the port.
const LISTENS: &str = "started successfully on port ";
/// The name of a reference to an element (WebDriver, section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A chromedriver and all browsers that it has started. They end with this.
pub struct Browser {
    driver: Child,
    url: String,
    http: Client,
    // For all that the browsers write.
    _folder: TempDir,
}

/// A browser of its own with one page: nothing is shared with other pages but what the server tells.
pub struct Page {
    http: Client,
    session: String,
}

/// What can be done with an entry of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read, or unread again.
    ToggleRead,
    /// Away with it.
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
            // A group with its browsers, so that they can be ended together.
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

    /// A browser with an empty page.
    pub async fn page(&self) -> Page {
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
        let made = command(&self.http, Method::POST, &url, Some(body)).await.expect("a browser");
        let id = made["sessionId"].as_str().expect("a session");
        Page { http: self.http.clone(), session: format!("{url}/{id}") }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver alone would leave its browsers behind.
        if let Some(group) = self.driver.id() {
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).status();
        }
    }
}

impl Page {
    /// Goes to this address, and waits until all of it is loaded.
    pub async fn open(&self, url: &str) {
        self.post("url", json!({ "url": url })).await.expect("a page");
    }

    /// The messages in the list, from top to bottom: newest first.
    pub async fn messages(&self) -> Vec<String> {
        self.texts("#list li.entry .message").await
    }

    /// Those of them that are shown as not yet read.
    pub async fn unread_messages(&self) -> Vec<String> {
        self.texts(r#"#list li.entry[data-read="false"] .message"#).await
    }

    /// The number of unread entries in the badge.
    pub async fn unread(&self) -> usize {
        let shown = self.texts("#unread").await;
        shown[0].parse().expect("a number")
    }

    /// What the tab is called.
    pub async fn title(&self) -> String {
        text(&self.run("return document.title", &[]).await.expect("a title"))
    }

    /// What stands in place of an empty list, if it is shown.
    pub async fn empty(&self) -> Option<String> {
        self.texts("#empty:not([hidden]) #empty-title").await.pop()
    }

    /// `live`, `connecting`, `waiting` or `offline`.
    pub async fn connection(&self) -> String {
        let script = "return document.querySelector('#connection').dataset.state";
        text(&self.run(script, &[]).await.expect("a state"))
    }

    /// The addresses that the list links to.
    pub async fn links(&self) -> Vec<String> {
        let script = "return [...document.querySelectorAll('#list a')].map((link) => link.href)";
        texts(&self.run(script, &[]).await.expect("links"))
    }

    /// Does this with the entry that has this message.
    pub async fn click(&self, message: &str, action: Action) {
        let script = "const [message, action] = arguments;
            const entry = [...document.querySelectorAll('#list li.entry')]
                .find((entry) => entry.querySelector('.message').textContent === message);
            return entry?.querySelector(`[data-action=\"${action}\"]:not([aria-disabled=true])`)";
        let action = match action {
            Action::ToggleRead => "toggle-read",
            Action::Dismiss => "dismiss",
        };
        self.click_on(script, &[message.into(), action.into()]).await;
    }

    /// Marks all as read.
    pub async fn mark_all_read(&self) {
        self.press("#mark-all-read").await;
    }

    /// Waits until the page asks for a token, and writes this one.
    pub async fn give_token(&self, token: &str) {
        let script = "return document.querySelector('#token-form').hidden";
        until(|| async {
            let hidden = self.run(script, &[]).await.expect("a form");
            if hidden == false { Ok(()) } else { Err("it does not ask") }
        })
        .await;
        self.write("#token", token).await;
        self.press("#token-form button").await;
    }

    /// Sends a notification with the form, and returns what the page says of it.
    pub async fn compose(&self, from: i64, to: i64, message: &str) -> String {
        self.write("#from", &from.to_string()).await;
        self.write("#to", &to.to_string()).await;
        self.write("#message", message).await;
        self.press("#send").await;
        until(|| async {
            let said = self.texts("#send-result").await.concat();
            if said.is_empty() { Err("nothing is said yet") } else { Ok(said) }
        })
        .await
    }

    /// Shows the page as on a screen of 1280 by 800 points or on a phone, in the dark or by day.
    /// Scroll bars are hidden.
    pub async fn emulate(&self, dark: bool, phone: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", media).await;
        let (width, height, scale) = if phone { (390, 844, 2) } else { (1280, 800, 1) };
        let screen = json!({
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", screen).await;
        self.devtools("Emulation.setScrollbarsHidden", json!({ "hidden": true })).await;
    }

    /// How many points of the page are to be reached only by scrolling sideways.
    pub async fn overflow(&self) -> i64 {
        let script = "const { scrollWidth, clientWidth } = document.documentElement;
            return scrollWidth - clientWidth";
        self.run(script, &[]).await.expect("a width").as_i64().expect("a number")
    }

    /// The colour behind everything, as CSS names it.
    pub async fn background(&self) -> String {
        let script = "return getComputedStyle(document.body).backgroundColor";
        text(&self.run(script, &[]).await.expect("a colour"))
    }

    /// Writes what is in view to this file, as PNG.
    pub async fn screenshot(&self, path: &Path) {
        let url = format!("{}/screenshot", self.session);
        let taken = command(&self.http, Method::GET, &url, None).await.expect("a screenshot");
        let png = BASE64.decode(text(&taken)).expect("base64");
        std::fs::write(path, png).expect("a file that can be written");
    }

    /// What the console has complained of since it was last asked: scripts that failed, and what
    /// the page's policy forbids. Not requests that failed: there is no page without them while its
    /// server is away.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.post("se/log", json!({ "type": "browser" })).await.expect("a log");
        let entries = entries.as_array().expect("a list").iter();
        let severe = entries.filter(|entry| entry["level"] == "SEVERE");
        severe.filter(|entry| entry["source"] != "network").map(Value::to_string).collect()
    }

    /// Writes this into a field, in place of what is there.
    async fn write(&self, field: &str, content: &str) {
        until(|| async {
            let found =
                self.run("return document.querySelector(arguments[0])", &[field.into()]).await?;
            let path = format!("element/{}", found[ELEMENT].as_str().ok_or("no such field")?);
            self.post(&format!("{path}/clear"), json!({})).await?;
            self.post(&format!("{path}/value"), json!({ "text": content })).await?;
            // The page itself fills in who sends, as soon as it knows who there is.
            let value = self.run("return arguments[0].value", &[found]).await?;
            if value == content { Ok(()) } else { Err(format!("{field} holds {value}")) }
        })
        .await;
    }

    async fn press(&self, button: &str) {
        let script = "return document.querySelector(`${arguments[0]}:not([aria-disabled=true])`)";
        self.click_on(script, &[button.into()]).await;
    }

    /// Clicks what this script finds, where a person would, as soon as it is there.
    async fn click_on(&self, script: &str, arguments: &[Value]) {
        until(|| async {
            let found = self.run(script, arguments).await?;
            let element = found[ELEMENT].as_str().ok_or("there is nothing to click")?;
            self.post(&format!("element/{element}/click"), json!({})).await
        })
        .await;
    }

    async fn texts(&self, selector: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])]
            .map((element) => element.textContent)";
        texts(&self.run(script, &[selector.into()]).await.expect("texts"))
    }

    async fn run(&self, script: &str, arguments: &[Value]) -> Result<Value, String> {
        self.post("execute/sync", json!({ "script": script, "args": arguments })).await
    }

    async fn devtools(&self, what: &str, parameters: Value) {
        let body = json!({ "cmd": what, "params": parameters });
        self.post("goog/cdp/execute", body).await.expect("an answer of the developer tools");
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, String> {
        let url = format!("{}/{path}", self.session);
        command(&self.http, Method::POST, &url, Some(body)).await
    }
}

async fn command(
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
    // The rest of an error is a stack of the browser's own functions.
    if done { Ok(value) } else { Err(format!("{}: {}", value["error"], value["message"])) }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().expect("a list").iter().map(text).collect()
}
