fn main() {
    let l = queuewarden::config::load(std::path::Path::new("config"), &queuewarden::policy::Policy::default());
    match l { Ok(l) => println!("{:?}", l.policy.revision), Err(e) => println!("{e}") }
}
