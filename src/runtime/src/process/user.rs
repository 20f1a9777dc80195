//! Who a container runs as: numbers and names from the pod, the image, and the image's own /etc/passwd and /etc/group.

use crate::Security;

/// Bytes of /etc/passwd and /etc/group that are looked at.
pub(crate) const FILE_BYTES: u64 = 4 << 20;

/// Numbers, and where home is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Sorted, each once; with the primary group, as the field shows them.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// The container cannot run as asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    /// a name that the image does not have
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// a group that the image does not have
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// not a number of a user
    #[error("{0} is no user or group id")]
    Range(i64),
    /// `runAsGroup` alone
    #[error("user group is specified without user")]
    GroupAlone,
    /// root although the pod forbids it
    #[error("container has runAsNonRoot and image will run as root")]
    Root,
}

/// An entry of /etc/passwd that counts.
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        Some(Entry { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: fields.nth(1).unwrap_or("") })
    })
}

/// `image_user` is `User` of the image: `user`, `uid`, `user:group`, `uid:gid`, or nothing.
pub(crate) fn resolve(security: &Security, image_user: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let number = |id: i64| u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(UserError::Range(id));
    let (image_name, image_group) = image_user.split_once(':').unwrap_or((image_user, ""));
    if security.run_as_group.is_some() && security.run_as_user.is_none() && image_name.is_empty() {
        return Err(UserError::GroupAlone);
    }
    let asked = match security.run_as_user {
        Some(uid) => Ok(number(uid)?),
        None if image_name.is_empty() => Ok(0),
        None => image_name.parse::<u32>().map_err(|_| image_name),
    };
    let entry = match asked {
        // A number counts as a number first; what passwd says of it gives group and home.
        Ok(uid) => entries(passwd).find(|entry| entry.uid == uid),
        Err(name) => Some(entries(passwd).find(|entry| entry.name == name).ok_or_else(|| UserError::NoUser(name.to_owned()))?),
    };
    let uid = asked.unwrap_or_else(|_| entry.as_ref().map_or(0, |entry| entry.uid));
    let gid = match security.run_as_group {
        Some(gid) => number(gid)?,
        None if security.run_as_user.is_none() && !image_group.is_empty() => group_id(group, image_group)?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    if security.run_as_non_root && uid == 0 {
        return Err(UserError::Root);
    }
    let mut groups = vec![gid];
    for extra in &security.supplemental_groups {
        groups.push(number(*extra)?);
    }
    if let (true, Some(entry)) = (security.merge_image_groups, &entry) {
        groups.extend(groups_of(group, entry.name));
    }
    groups.sort_unstable();
    groups.dedup();
    let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
    Ok(User { uid, gid, groups, home })
}

fn group_id(group: &str, name: &str) -> Result<u32, UserError> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let find = |line: &str| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    group.lines().find_map(find).ok_or_else(|| UserError::NoGroup(name.to_owned()))
}

fn groups_of<'a>(group: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let mut fields = line.split(':');
        let gid = fields.nth(2)?.parse().ok()?;
        fields.next()?.split(',').any(|member| member.trim() == user).then_some(gid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\nbroken\nalso:x:y:z::\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\napp:x:1001:\nvideo:x:44:app\n";

    #[test]
    fn users_of_images_and_pods() {
        let check = |change: fn(&mut Security), image: &str| {
            let mut security = Security::default();
            change(&mut security);
            resolve(&security, image, PASSWD, GROUP).map(|user| (user.uid, user.gid, user.groups, user.home))
        };
        let user = |uid, gid, groups: &[u32], home: &str| Ok((uid, gid, groups.to_vec(), home.to_owned()));
        assert_eq!(check(|_| (), ""), user(0, 0, &[0, 10], "/root"));
        assert_eq!(check(|_| (), "app"), user(1000, 1001, &[10, 44, 1001], "/home/app"));
        assert_eq!(check(|_| (), "1000"), user(1000, 1001, &[10, 44, 1001], "/home/app"));
        assert_eq!(check(|_| (), "app:wheel"), user(1000, 10, &[10, 44], "/home/app"));
        assert_eq!(check(|_| (), "77:88"), user(77, 88, &[88], "/"));
        assert_eq!(check(|s| s.run_as_user = Some(5), "app"), user(5, 0, &[0], "/"));
        assert_eq!(check(|s| (s.run_as_user, s.run_as_group) = (Some(5), Some(6)), ""), user(5, 6, &[6], "/"));
        assert_eq!(check(|s| s.supplemental_groups = vec![9, 9, 3], "77"), user(77, 0, &[0, 3, 9], "/"));
        assert_eq!(check(|s| s.merge_image_groups = false, "app"), user(1000, 1001, &[1001], "/home/app"));
        assert_eq!(check(|s| s.run_as_non_root = true, ""), Err(UserError::Root));
        assert_eq!(check(|s| s.run_as_non_root = true, "app"), user(1000, 1001, &[10, 44, 1001], "/home/app"));
        assert_eq!(check(|_| (), "nobody"), Err(UserError::NoUser("nobody".into())));
        assert_eq!(check(|_| (), "app:none"), Err(UserError::NoGroup("none".into())));
        assert_eq!(check(|s| s.run_as_user = Some(-1), ""), Err(UserError::Range(-1)));
        assert_eq!(check(|s| s.run_as_group = Some(3), ""), Err(UserError::GroupAlone));
    }

    proptest::proptest! {
        #[test]
        fn no_file_of_an_image_makes_it_panic(passwd in "[a-z0-9:,\n]{0,80}", group in "[a-z0-9:,\n]{0,80}", user in "[a-z0-9:]{0,8}") {
            let _ = resolve(&Security::default(), &user, &passwd, &group);
        }
    }
}
