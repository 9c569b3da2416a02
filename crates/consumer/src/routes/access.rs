//! Whose inbox a caller may open: their own, and every one with the scope `admin`.

use axum::{
    extract::{RawPathParams, Request},
    middleware::Next,
    response::Response,
};
use model::UserId;
use service::{auth::Caller, problem::Problem};

/// Lets through who asks for their own inbox. Stands before a request is passed on to the inbox's
/// owner, where it is asked again.
pub(super) async fn own_inbox(
    caller: Caller,
    path: RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let id = path.iter().find(|(name, _)| *name == "id").map(|(_, id)| id.parse::<UserId>());
    match id {
        Some(Ok(user)) if !caller.is_admin() && !caller.is(&user) => {
            Err(Caller::refused("The token is another user's, and opens their inbox alone"))
        }
        // What names no user is refused by the handler, in its words.
        _ => Ok(next.run(request).await),
    }
}
