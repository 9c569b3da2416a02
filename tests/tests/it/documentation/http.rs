//! docs/reference/routes.md and errors.md, from both services' OpenAPI documents.

use std::collections::BTreeMap;

use e2e::world::World;
use serde_json::{Map, Value};

use super::{begin_page, check_generated_page, markdown::slug, table_head, table_row};

/// The tags of the routes, in the order of the page.
const TAGS: [&str; 6] = ["send", "users", "inbox", "receipts", "operation", "health"];
const METHODS: [&str; 4] = ["get", "post", "put", "delete"];

/// An operation of one service, or of both.
#[derive(Clone, PartialEq)]
struct Operation {
    method: &'static str,
    path: String,
    value: Value,
}

impl Operation {
    /// Such as `POST /send`.
    fn name(&self) -> String {
        format!("{} {}", self.method.to_uppercase(), self.path)
    }

    /// Its place on the page.
    fn rank(&self) -> (usize, &str, usize) {
        let tag = self.value["tags"][0].as_str().expect("a tag");
        let rank = TAGS.iter().position(|one| *one == tag);
        let method = METHODS.iter().position(|one| *one == self.method);
        (rank.expect("one of TAGS"), &self.path, method.expect("one of METHODS"))
    }

    /// Status and description of each response of its own.
    fn own_responses(&self) -> Vec<(&str, String)> {
        let responses = members(&self.value["responses"]);
        let own = responses.filter(|(_, response)| response["$ref"].is_null());
        own.map(|(status, response)| (status, text(&response["description"]))).collect()
    }

    /// The statuses of the errors that do not depend on the route.
    fn common_statuses(&self) -> Vec<&str> {
        let responses = members(&self.value["responses"]);
        responses.filter(|(_, it)| !it["$ref"].is_null()).map(|(status, _)| status).collect()
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter).map(|(name, value)| (name.as_str(), value))
}

/// A description in one line without its last full stop; empty if there is none.
fn text(value: &Value) -> String {
    let words: Vec<_> = value.as_str().unwrap_or_default().split_whitespace().collect();
    words.join(" ").trim_end_matches('.').to_owned()
}

/// The documents of the producer and of the consumer.
async fn fetch_documents() -> [Value; 2] {
    let world = World::embedded().await;
    let fetch = async |url: String| -> Value {
        let response = world.http().get(url).send().await.expect("an answer");
        response.json().await.expect("JSON")
    };
    let documents = [
        fetch(world.producer_url("/openapi.json")).await,
        fetch(world.consumer_url("/openapi.json")).await,
    ];
    assert_eq!(documents[0]["components"]["responses"], documents[1]["components"]["responses"]);
    documents
}

/// The operations by service: producer, consumer, both.
fn all_operations(documents: &[Value; 2]) -> [(&'static str, Vec<Operation>); 3] {
    let [mut producer, mut consumer] = documents.each_ref().map(|document| {
        let operations = members(&document["paths"]).flat_map(|(path, item)| {
            METHODS.into_iter().filter_map(|method| {
                let value = item.get(method)?.clone();
                Some(Operation { method, path: path.to_owned(), value })
            })
        });
        let mut operations: Vec<_> = operations.collect();
        operations.sort_by(|a, b| a.rank().cmp(&b.rank()));
        operations
    });
    let both: Vec<_> = producer.iter().filter(|it| consumer.contains(it)).cloned().collect();
    producer.retain(|it| !both.contains(it));
    consumer.retain(|it| !both.contains(it));
    [("The producer, port 8080", producer), ("The consumer, port 8081", consumer), ("Both", both)]
}

fn describe_operation(operation: &Operation) -> String {
    let Operation { value, .. } = operation;
    let mut page = format!("\n### {}\n\n{}.", operation.name(), text(&value["summary"]));
    let more = text(&value["description"]);
    if !more.is_empty() {
        page += &format!(" {more}.");
    }
    page += "\n";
    if let Some(body) = value.get("requestBody") {
        let types: Vec<_> =
            members(&body["content"]).map(|(name, _)| format!("`{name}`")).collect();
        let about = text(&body["description"]);
        let about = if about.is_empty() { String::new() } else { format!(": {about}") };
        page += &format!("\nBody ({}){about}.\n", types.join(", "));
    }
    // The summary says what the parts of the path are.
    let parameters = value["parameters"].as_array().into_iter().flatten();
    let parameters: Vec<_> = parameters.filter(|parameter| parameter["in"] != "path").collect();
    if !parameters.is_empty() {
        page += "\n";
        page += &table_head(&["parameter", "in", "meaning"]);
        for parameter in parameters {
            let name = format!("`{}`", text(&parameter["name"]));
            let (place, about) = (text(&parameter["in"]), text(&parameter["description"]));
            page += &table_row(&[&name, &place, &about]);
        }
    }
    page += "\n";
    page += &table_head(&["status", "when"]);
    for (status, when) in operation.own_responses() {
        page += &table_row(&[status, &when]);
    }
    let common = operation.common_statuses().join(", ");
    if !common.is_empty() {
        page += &table_row(&[&common, "as for every route, see [Errors](errors.md#every-route)"]);
    }
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_routes_is_what_both_services_describe() {
    let mut page = begin_page("Routes");
    page += "Each service also describes itself: `GET /openapi.json` is its OpenAPI 3.1 document, with the bodies' \
             schemas, and `GET /docs` a page of it, interactive in a build with `--features full`. The consumer \
             shows the web inbox at `GET /`.\n";
    let services = all_operations(&fetch_documents().await);
    for (title, operations) in &services {
        page += &format!("\n## {title}\n\n");
        page += &table_head(&["route", "what it does"]);
        for operation in operations {
            let name = operation.name();
            let link = format!("[`{name}`](#{})", slug(&name));
            page += &table_row(&[&link, &text(&operation.value["summary"])]);
        }
        page.extend(operations.iter().map(describe_operation));
    }
    check_generated_page("routes.md", &page);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_errors_is_what_both_services_describe() {
    let documents = fetch_documents().await;
    let mut page = begin_page("Errors");
    page += "The body of every error is `application/problem+json` \
             ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)). It is never cached.\n";
    page += "\n## Every route\n\n";
    page += &table_head(&["status", "when"]);
    for (status, response) in members(&documents[0]["components"]["responses"]) {
        page += &table_row(&[status, &text(&response["description"])]);
    }

    page += "\n## Of some routes\n\nWhere a route has its own row for a status, that row is what the status means there.\n\n";
    page += &table_head(&["status", "route", "when"]);
    // Routes by status and description, in the order of the routes.
    let mut routes: BTreeMap<(String, usize), (String, Vec<String>)> = BTreeMap::new();
    let services = all_operations(&documents);
    for (number, operation) in services.iter().flat_map(|(_, operations)| operations).enumerate() {
        for (status, when) in operation.own_responses() {
            if !status.starts_with(['4', '5']) {
                continue;
            }
            let same = routes.iter_mut().find(|((s, _), (w, _))| s == status && *w == when);
            let link = format!("[`{0}`](routes.md#{1})", operation.name(), slug(&operation.name()));
            match same {
                Some((_, (_, links))) => links.push(link),
                None => {
                    routes.insert((status.to_owned(), number), (when, vec![link]));
                }
            }
        }
    }
    for ((status, _), (when, links)) in &routes {
        page += &table_row(&[status, &links.join(", "), when]);
    }

    page += "\n## Members of the body\n\n";
    page += &table_head(&["member", "meaning"]);
    let schema = &documents[0]["components"]["schemas"]["Problem"];
    let known = schema["required"].as_array().expect("required members");
    let (own, extensions): (Vec<_>, Vec<_>) =
        members(&schema["properties"]).partition(|(name, _)| known.iter().any(|it| it == name));
    for (name, member) in own.iter().chain(&extensions) {
        page += &table_row(&[&format!("`{name}`"), &text(&member["description"])]);
    }
    check_generated_page("errors.md", &page);
}
