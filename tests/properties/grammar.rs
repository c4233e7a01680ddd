//! The grammar of the answers, written from DESIGN.md section 5 and not from `src`.

use crate::properties::side_by_side::ComparableAnswer;

fn is_value(text: &str) -> bool {
    let admitted = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:@+*#".contains(&byte);
    !text.is_empty() && text.len() <= 128 && text.bytes().all(admitted)
}

fn is_code(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// The parts of a reply line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply<'a> {
    pub(crate) id: &'a str,
    pub(crate) word: &'a str,
    pub(crate) pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Reply<'a> {
    /// `reply = id SP word *( SP key "=" value ) LF`, and for each word its keys.
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let line = line.strip_suffix('\n')?;
        let mut tokens = line.split(' ');
        let (id, word) = (tokens.next()?, tokens.next()?);
        let is_id = id == "-" || (1..=16).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let pairs: Vec<(&str, &str)> = tokens.map(|token| token.split_once('=')).collect::<Option<_>>()?;
        let values = pairs.iter().all(|&(key, value)| is_code(key) && value.split(',').all(is_value));
        let keys: Vec<&str> = pairs.iter().map(|&(key, _)| key).collect();
        let repeated = keys.iter().enumerate().any(|(position, key)| keys[..position].contains(key));
        let has = |key| keys.contains(&key);
        let fits = match word {
            "pong" => keys.is_empty(),
            "error" => keys == ["reason"] || keys == ["reason", "key"],
            "allow" if keys == ["reason"] => pairs == [("reason", "authenticated")],
            "allow" | "deny" => {
                let supervision = ["mode", "target", "asterisk", "freeswitch"];
                let pinned = supervision.map(has);
                has("reason")
                    && has("policy")
                    && !(has("queue") && has("queues"))
                    && (pinned == [word == "allow"; 4] || pinned == [false; 4])
                    && keys.iter().all(|key| {
                        ["action", "queue", "queues", "reason", "policy"].contains(key) || supervision.contains(key)
                    })
            }
            _ => false,
        };
        (is_id && values && !repeated && fits).then_some(Self { id, word, pairs })
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(name, _)| *name == key).map(|&(_, value)| value)
    }
}

/// The answer in a reply line. `None`: the line is not in the grammar or has another id. Only the reply to an allowed
/// supervision has a target.
pub(crate) fn parse_reply(text: &str, id: &str) -> Option<ComparableAnswer> {
    let reply = Reply::parse(text).filter(|reply| reply.id == id)?;
    let verdict = ["allow", "deny", "error"].into_iter().find(|word| *word == reply.word)?;
    let queues = reply.value("queue").or(reply.value("queues"));
    let mut queues: Vec<String> = queues.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect();
    queues.sort_unstable();
    let key = reply.value("key").and_then(queuewarden::event::Key::named);
    Some(ComparableAnswer {
        verdict,
        reason: reply.value("reason")?.to_owned(),
        key: key.map(queuewarden::event::Key::name),
        action: reply.value("action").map(str::to_owned),
        queues,
        target: reply.value("target").map(str::to_owned),
    })
}

/// The variables that six FastAGI commands set, in order. `None`: the text is not six such commands.
pub(crate) fn variables(text: &str) -> Option<Vec<(&str, &str)>> {
    let body = text.strip_suffix('\n')?;
    let mut set = vec![];
    for line in body.split('\n') {
        let (name, quoted) = line.strip_prefix("SET VARIABLE ")?.split_once(' ')?;
        let value = quoted.strip_prefix('"')?.strip_suffix('"')?;
        let admitted = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:@+*#&".contains(&byte);
        if line.len() > 8_191 || !value.bytes().all(admitted) {
            return None;
        }
        set.push((name, value));
    }
    let names: Vec<&str> = set.iter().map(|&(name, _)| name).collect();
    let expected = ["QW_REASON", "QW_ACTION", "QW_QUEUES", "QW_TARGET", "QW_SPY_OPTIONS", "QW_VERDICT"];
    let verdict = set.last().is_some_and(|&(_, verdict)| verdict == "ALLOW" || verdict == "DENY");
    (names == expected && verdict && is_code(set[0].1)).then_some(set)
}
