//! Property tests of the parser: generated bodies are refused with a 4xx problem, or parse to a
//! request within its bounds that stays the same when it is written and parsed again.

use inputs::{bytes, json, json_string, mutated, mutated_text, text};
use model::{Category, Data, Link, Message};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::json;
use service::problem::Problem;

use super::request::{MAX_RECIPIENTS, SendRequest};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";
const NAMES: [&str; 8] =
    ["from_id", "to_id", "message", "category", "link", "data", "idempotency_key", "other"];

/// A valid id, or a mutation of one.
fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (1..=i64::MAX).prop_map(|id| id.to_string()),
        1 => mutated_text((1..=i64::MAX).prop_map(|id| id.to_string())),
    ]
}

/// A body with all required fields, in any order, and with more.
fn json_body() -> impl Strategy<Value = Vec<u8>> {
    let to = prop_oneof![
        id(),
        vec(id(), 0..6).prop_map(|ids| format!("[{}]", ids.join(","))),
        (1..=i64::MAX, MAX_RECIPIENTS - 2..MAX_RECIPIENTS + 3)
            .prop_map(|(id, times)| format!("[{}]", vec![id.to_string(); times].join(","))),
    ];
    let key = || json_string().prop_map(|key| format!("\"idempotency_key\":{key}"));
    let more = (select(&NAMES[..]), prop_oneof![json(), json_string(), id()])
        .prop_map(|(name, value)| format!("\"{name}\":{value}"));
    let fields = (
        id().prop_map(|id| format!("\"from_id\":{id}")),
        to.prop_map(|ids| format!("\"to_id\":{ids}")),
        json_string().prop_map(|text| format!("\"message\":{text}")),
        vec(prop_oneof![more, key()], 0..4),
    );
    fields
        .prop_map(|(from, to, message, more)| [vec![from, to, message], more].concat())
        .prop_shuffle()
        .prop_map(|fields| format!("{{{}}}", fields.join(",")).into_bytes())
}

fn form_body() -> impl Strategy<Value = Vec<u8>> {
    let more = (select(&NAMES[..]), prop_oneof![json(), text(), id()]);
    (id(), vec(id(), 1..4), text(), vec(more, 0..4)).prop_map(|(from, to, message, more)| {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("from_id", &from).append_pair("message", &message);
        form.extend_pairs(to.iter().map(|id| ("to_id", id)));
        form.extend_pairs(&more);
        form.finish().into_bytes()
    })
}

fn is_within_bounds(send: &SendRequest) -> Result<(), TestCaseError> {
    prop_assert!((1..=MAX_RECIPIENTS).contains(&send.to.len()));
    let mut once = send.to.to_vec();
    once.sort_unstable();
    once.dedup();
    prop_assert_eq!(once.len(), send.to.len());
    prop_assert!(send.message.as_str().chars().count() <= Message::MAX_CHARS);
    let category = send.category.as_ref().map_or("", Category::as_str);
    prop_assert!(category.chars().count() <= Category::MAX_CHARS);
    prop_assert!(send.link.as_ref().map_or("", Link::as_str).chars().count() <= Link::MAX_CHARS);
    let data = send.data.as_ref().map_or("", |data| data.as_json().get());
    prop_assert!(data.len() <= Data::MAX_BYTES && !data.contains('\n'));
    Ok(())
}

fn refused(problem: &Problem) -> Result<(), TestCaseError> {
    prop_assert!(problem.status().is_client_error(), "{}: {}", problem.status(), problem.message());
    Ok(())
}

proptest! {
    #[test]
    fn a_body_is_refused_or_means_the_same_when_it_is_said_again(
        media_type in select(&[FORM, JSON, JSON, FORM, "text/plain"][..]),
        body in prop_oneof![1 => bytes(), 3 => mutated(json_body()), 3 => mutated(form_body())],
    ) {
        match SendRequest::parse(Some(media_type), &body) {
            Err(problem) => refused(&problem)?,
            Ok(send) => {
                is_within_bounds(&send)?;
                let again = json!({
                    "from_id": send.from,
                    "to_id": send.to.as_slice(),
                    "message": send.message.as_str(),
                    "category": send.category.as_ref().map(Category::as_str),
                    "link": send.link.as_ref().map(Link::as_str),
                });
                let same = SendRequest::parse(Some(JSON), again.to_string().as_bytes());
                // serde_json's Value would not keep the spelling of the data's numbers.
                let same = same.map(|same| SendRequest { data: send.data.clone(), ..same });
                prop_assert_eq!(same.map_err(|problem| problem.message().to_owned()), Ok(send));
            }
        }
    }

    #[test]
    fn a_line_is_refused_or_within_bounds(
        line in prop_oneof![1 => bytes(), 3 => mutated(json_body())],
    ) {
        match SendRequest::parse_line(&line) {
            Err(problem) => refused(&problem)?,
            Ok((send, key)) => {
                is_within_bounds(&send)?;
                if let Some(key) = key {
                    // Ids can be derived from the key and from the keys of its lines.
                    let (id, other) = (key.notification_id(send.from, send.from), key.for_line(7).notification_id(send.from, send.from));
                    prop_assert_ne!(id, other);
                }
            }
        }
    }

    #[test]
    fn what_json_says_is_what_is_sent(
        from in 1..i64::MAX, to in proptest::collection::vec(1..i64::MAX, 1..5),
        message in "\\PC{1,40}[a-z]", category in proptest::option::of("[a-zé\"\\\\]{1,64}"),
    ) {
        let body = serde_json::json!({"from_id": from, "to_id": to, "message": message, "category": category});
        let send = SendRequest::parse(Some(JSON), body.to_string().as_bytes()).expect("valid");
        prop_assert_eq!(send.from.get(), from);
        prop_assert!(send.to.iter().all(|id| to.contains(&id.get())));
        prop_assert_eq!(send.message.as_str(), message);
        prop_assert_eq!(send.category.as_ref().map(Category::as_str), category.as_deref());
    }
}
