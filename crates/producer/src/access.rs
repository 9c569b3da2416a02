//! Who may do what, in one place. Where authentication is off, everybody may do everything.

use model::UserId;
use service::{auth::Caller, problem::Problem};

/// To send, and to see whom one can send to.
const SEND: &str = "send";

/// Whether the caller may send at all.
///
/// # Errors
/// 403.
pub(crate) fn may_send(caller: &Caller) -> Result<(), Problem> {
    caller.must_have(SEND)
}

/// Whether the caller may send as this user: a token without a user may send as anybody, one of a
/// user as them alone.
///
/// # Errors
/// 403.
pub(crate) fn may_send_as(caller: &Caller, from: UserId) -> Result<(), Problem> {
    may_send(caller)?;
    match caller.subject() {
        Some(_) if caller.is_user(&from) || caller.is_admin() => Ok(()),
        Some(_) => {
            let why = "from_id: the token is another user's, and sends as them alone";
            Err(Caller::forbidden_problem(why).with("field", "from_id"))
        }
        None => Ok(()),
    }
}

/// Whether the caller may see who everybody is.
///
/// # Errors
/// 403.
pub(crate) fn may_list(caller: &Caller) -> Result<(), Problem> {
    caller.must_have(SEND)
}

/// Whether the caller may see who this user is.
///
/// # Errors
/// 403.
pub(crate) fn may_see(caller: &Caller, user: UserId) -> Result<(), Problem> {
    if caller.is_user(&user) { Ok(()) } else { caller.must_have(SEND) }
}

/// Whether the caller may make, rename and remove users.
///
/// # Errors
/// 403.
pub(crate) fn may_change(caller: &Caller) -> Result<(), Problem> {
    caller.must_have("admin")
}
