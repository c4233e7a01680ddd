//! The users of this machine, by name: `users` of `[[peers]]`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::limits::PASSWD_BYTES_MAX;

/// The file of the users that this machine defines itself.
const PASSWD: &str = "/etc/passwd";

/// The id of the user with this name, or of the user whose id this is. `None`: the machine defines no such user.
pub(super) fn id_of(user: &str) -> Option<u32> {
    id_in(&passwd(Path::new(PASSWD)), user)
}

/// The text of the file, as far as it is readable.
fn passwd(path: &Path) -> String {
    let mut bytes = vec![];
    if let Ok(file) = File::open(path) {
        file.take(PASSWD_BYTES_MAX).read_to_end(&mut bytes).ok();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An id needs no line: a user of a directory service, or of a unit with `DynamicUser=`, has none.
fn id_in(passwd: &str, user: &str) -> Option<u32> {
    let named = passwd.lines().find_map(|line| {
        let mut columns = line.split(':');
        (columns.next() == Some(user)).then(|| columns.nth(1)?.parse().ok())?
    });
    let is_id = !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_digit());
    named.or_else(|| user.parse().ok().filter(|_| is_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_of_this_machine_or_an_id() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nasterisk:x:114:121::/var/lib/asterisk:/bin/false\nbroken\n";
        assert_eq!(id_in(passwd, "asterisk"), Some(114));
        assert_eq!(id_in(passwd, "65534"), Some(65_534));
        for user in ["", "kamailio", "aster", "broken", "-1", "+1", "x", "4294967296"] {
            assert_eq!(id_in(passwd, user), None, "{user:?}");
        }
    }
}
