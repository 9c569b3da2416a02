//! Whose inbox a caller may open: their own, and every one with the scope `admin`.

use axum::extract::Request;
use model::UserId;
use service::{auth::Caller, problem::Problem};

/// Lets through who asks for their own inbox. Asked before a request is passed on to the inbox's
/// owner, where it is asked again.
///
/// # Errors
/// 403; 500 where nobody asked who the caller is.
pub(super) fn own_inbox(request: &Request, user: UserId) -> Result<(), Problem> {
    let caller = Caller::from_extensions(request.extensions())?;
    if caller.is_admin() || caller.is_user(&user) {
        return Ok(());
    }
    Err(Caller::forbidden_problem("The token is another user's, and opens their inbox alone"))
}
