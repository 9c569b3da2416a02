//! The inboxes that a caller may open: their own, and every inbox with the scope `admin`.

use axum::extract::Request;
use model::UserId;
use service::{auth::Caller, problem::Problem};

/// Checks that the caller may open this user's inbox. Both the instance that forwards a request and
/// the owner that receives it check.
///
/// # Errors
/// 403; 500 if the route is not behind authentication.
pub(super) fn check_inbox_access(request: &Request, user: UserId) -> Result<(), Problem> {
    let caller = Caller::of(request.extensions())?;
    if caller.is_admin() || caller.is(&user) {
        return Ok(());
    }
    Err(Caller::refused("The token is another user's and gives access to their inbox only"))
}
