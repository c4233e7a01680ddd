//! The shipped Grafana dashboard can be imported, and every panel has a title, a unit and a description.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::project;

fn dashboard() -> Value {
    let text = fs::read_to_string(project().join("config/grafana/queuewarden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The panels, without rows.
pub fn panels() -> Vec<Value> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    panels.iter().filter(|panel| panel["type"] != "row").cloned().collect()
}

/// Every query with the title of its panel, and the queries of the annotations.
pub fn queries() -> Vec<(String, String)> {
    let mut queries = vec![];
    for panel in panels() {
        for target in panel["targets"].as_array().unwrap() {
            queries.push((panel["title"].as_str().unwrap().to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    for annotation in dashboard()["annotations"]["list"].as_array().unwrap() {
        queries.extend(annotation["expr"].as_str().map(|expr| ("annotation".to_owned(), expr.to_owned())));
    }
    queries
}

#[test]
fn grafana_9_to_11_can_import_the_schema() {
    let dashboard = dashboard();
    assert!((36..=39).contains(&dashboard["schemaVersion"].as_u64().unwrap()));
    assert_eq!((&dashboard["id"], &dashboard["uid"]), (&Value::Null, &"queuewarden".into()));
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let kinds: Vec<(&str, &str)> =
        variables.iter().map(|it| (it["name"].as_str().unwrap(), it["type"].as_str().unwrap())).collect();
    assert_eq!(kinds, [("datasource", "datasource"), ("instance", "query")]);
    assert!(variables[1]["definition"].as_str().unwrap().contains("queuewarden_build_info, instance"));
}

#[test]
fn every_panel_has_a_title_a_unit_and_a_description() {
    let panels = panels();
    assert!(panels.len() > 30);
    for panel in &panels {
        let title = panel["title"].as_str().unwrap();
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title} has no description");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(defaults["unit"].is_string(), "{title} has no unit");
        assert!(!defaults["thresholds"]["steps"].as_array().unwrap().is_empty(), "{title} has no thresholds");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            assert!(target["legendFormat"].as_str().is_some_and(|legend| !legend.is_empty()), "{title} has no legend");
            assert!(
                target["expr"].as_str().unwrap().contains("instance=~\"$instance\""),
                "{title} does not select the instance"
            );
        }
    }
}

#[test]
fn panels_do_not_overlap_and_have_unique_ids() {
    let dashboard = dashboard();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title} has the id of another panel");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{title} ends right of the 24 columns");
        for cell in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} covers another panel");
        }
    }
}
