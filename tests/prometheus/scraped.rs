//! Given a sidecar with traffic, when a real Prometheus scrapes it with the shipped configuration, then every query of
//! the dashboard and every recording rule has data, and every rule is healthy.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::prometheus::{dashboard, program, rules};
use crate::support::model_asterisk::ModelAsterisk;
use crate::support::{Folder, Sidecar, connect, project, read_to_end, wait_until};

/// Longest time until Prometheus has scraped, evaluated and answered everything.
const PATIENCE: Duration = Duration::from_secs(60);
/// The value of `$__rate_interval`, which Grafana would choose: a few scrapes.
const WINDOW: &str = "10s";

/// A Prometheus process that ends with the test.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts Prometheus on the shipped configuration, with another target and shorter intervals. `None`: Prometheus is
    /// not installed.
    fn start(target: SocketAddr) -> Option<Self> {
        let program = program("QUEUEWARDEN_PROMETHEUS", "prometheus")?;
        let folder = tempfile::tempdir().unwrap();
        for file in ["recording.rules.yml", "alerts.rules.yml"] {
            fs::copy(project().join("config/prometheus").join(file), folder.path().join(file)).unwrap();
        }
        let shipped = fs::read_to_string(project().join("config/prometheus/prometheus.yml")).unwrap();
        let mut config = shipped;
        for (from, to) in [
            ("127.0.0.1:9471", target.to_string().as_str()),
            ("scrape_interval: 15s", "scrape_interval: 500ms"),
            ("evaluation_interval: 15s", "evaluation_interval: 1s"),
            ("scrape_timeout: 5s", "scrape_timeout: 500ms"),
        ] {
            assert!(config.contains(from), "the scrape configuration lacks {from:?}");
            config = config.replace(from, to);
        }
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.args(["--web.listen-address=127.0.0.1:0", "--log.format=json"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, receiver) = std::sync::mpsc::channel();
        // The log is read to its end: Prometheus would block on a full pipe.
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if event["msg"] == "Listening on" {
                    let _ = sender.send(event["address"].as_str().unwrap().parse::<SocketAddr>().unwrap());
                }
            }
        });
        let Ok(address) = receiver.recv_timeout(PATIENCE) else {
            drop(child.kill());
            panic!("Prometheus does not listen");
        };
        let this = Self { child, address, _folder: folder };
        wait_until("Prometheus", || this.request("/-/ready").starts_with("HTTP/1.0 200 "));
        Some(this)
    }

    fn request(&self, path: &str) -> String {
        let mut stream = connect(self.address);
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        read_to_end(&mut stream)
    }

    /// The member `data` of the API's answer.
    fn get(&self, path: &str) -> Value {
        let text = self.request(&["", "api", "v1", path].join("/"));
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let answer: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {path}: {text}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// The current values of an expression.
    fn values(&self, expression: &str) -> Vec<f64> {
        let query = serde_urlencoded::to_string([("query", expression)]).unwrap();
        let data = self.get(&format!("query?{query}"));
        let value = |sample: &Value| sample["value"][1].as_str().unwrap().parse().unwrap();
        data["result"].as_array().unwrap().iter().map(value).collect()
    }

    fn has_data(&self, expression: &str) -> bool {
        let values = self.values(expression);
        !values.is_empty() && values.iter().any(|value| value.is_finite())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks questions that change every counter of the dashboard.
fn make_traffic(sidecar: &Sidecar) {
    let mut line = sidecar.line();
    for question in [
        "dial org=acme actor=1001 digits=*13",
        "dial org=acme actor=1002 digits=*13600",
        "do org=acme actor=2001 action=agent.login target=1002 queue=600 for=60",
        "do org=acme actor=2001 action=call.listen target=1001 queue=600 call=c-1",
        "do org=acme actor=2001 action=call.whisper target=1001 queue=601 call=c-1",
        "may org=acme actor=1001 action=queue.login queue=600",
        "may org=acme actor=3001 action=permissions.view",
        "no such thing",
        "dial org=acme actor=1001 digits=*14",
    ] {
        line.ask(question);
    }
    sidecar.agi("1001", "acme/dial", &["digits=*13600"]);
    sidecar.agi("3001", "acme/dial", &["digits=*13600"]);
}

#[test]
fn every_panel_and_every_rule_has_data() {
    let folder = Folder::demo().durable();
    folder.write("queuewarden.toml", &(folder.read("queuewarden.toml") + "[metrics]\nsessions_by_queue_max = 5\n"));
    let asterisk = ModelAsterisk::with_queues(&["600", "601"]);
    folder.link_to_asterisk("pbx-1", asterisk.address, "");
    let sidecar = Sidecar::start(&folder);
    let Some(prometheus) = Prometheus::start(sidecar.address("admin")) else { return };
    // Prometheus must scrape the zeros before the first question, or no rate would be above 0.
    wait_until("the first scrape", || prometheus.has_data("queuewarden_decisions_total"));

    let instance = sidecar.address("admin").to_string();
    let substituted = |query: &str| query.replace("$__rate_interval", WINDOW).replace("$instance", &instance);
    let panels = dashboard::queries().into_iter().map(|(title, query)| (title, substituted(&query)));
    let recorded = rules::recorded().into_iter().map(|name| ("recording rule".to_owned(), name));
    let mut without: BTreeSet<(String, String)> = panels.chain(recorded).collect();
    assert!(without.len() > 50 && without.iter().all(|(_, query)| !query.contains('$')), "{without:#?}");
    let deadline = Instant::now() + PATIENCE;
    while !without.is_empty() {
        assert!(Instant::now() < deadline, "no data: {without:#?}");
        make_traffic(&sidecar);
        without.retain(|(_, query)| !prometheus.has_data(query));
    }

    // Prometheus has the values of the sidecar: one instance and one lease.
    assert_eq!(prometheus.values("count(up == 1)"), [1.0]);
    let is_there = || prometheus.values("sum(queuewarden_leases)") == [1.0];
    wait_until("the lease", is_there);
    let groups = prometheus.get("rules");
    let all_rules = groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    let rules: Vec<&Value> = all_rules.collect();
    assert_eq!(rules.len(), rules::recorded().len() + rules::alerts().len());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    // A real alert fires: the lease ends within five minutes.
    wait_until("the alert", || {
        let alerts = prometheus.get("alerts");
        let is_ours =
            |alert: &Value| alert["labels"]["alertname"] == "QueuewardenLeasesExpiring" && alert["state"] == "firing";
        alerts["alerts"].as_array().unwrap().iter().any(is_ours)
    });
}
