//! Authorization: the scopes and users that each operation requires. A failed check is a 403. With
//! authentication off, every check passes.

use model::UserId;
use service::{auth::Caller, problem::Problem};

/// The scope for sending and for listing users.
const SEND: &str = "send";

/// Checks that the caller may send, and list the users.
pub(crate) fn may_send(caller: &Caller) -> Result<(), Problem> {
    caller.must_have(SEND)
}

/// Checks that the caller may send as this user. A token without a subject may send as any user, one
/// with a subject only as that user.
pub(crate) fn may_send_as(caller: &Caller, from: UserId) -> Result<(), Problem> {
    may_send(caller)?;
    if caller.subject().is_none() || caller.is_user(&from) || caller.is_admin() {
        return Ok(());
    }
    let why = "from_id: the token belongs to another user and may send only as that user";
    Err(Caller::forbidden_problem(why).with("field", "from_id"))
}

/// Checks that the caller may read this user.
pub(crate) fn may_see(caller: &Caller, user: UserId) -> Result<(), Problem> {
    if caller.is_user(&user) { Ok(()) } else { caller.must_have(SEND) }
}

/// Checks that the caller may create, rename and delete users.
pub(crate) fn may_change(caller: &Caller) -> Result<(), Problem> {
    caller.must_have("admin")
}
