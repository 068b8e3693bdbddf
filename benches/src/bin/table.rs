//! Prints the results of `cargo bench --features peers` as the tables of the documents: medians for each packet and their ratios.

use std::collections::BTreeMap;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let criterion = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/criterion");
    let mut groups: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    for group in std::fs::read_dir(criterion)? {
        for function in std::fs::read_dir(group?.path()).into_iter().flatten() {
            let folder = function?.path().join("new");
            let Ok(text) = std::fs::read_to_string(folder.join("estimates.json")) else {
                continue;
            };
            let id: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string(folder.join("benchmark.json"))?)?;
            let estimates: serde_json::Value = serde_json::from_str(&text)?;
            let nanoseconds = estimates["median"]["point_estimate"]
                .as_f64()
                .ok_or("no median")?;
            let name = |key: &str| id[key].as_str().unwrap_or_default().to_owned();
            let count = id["throughput"]["Elements"].as_f64().unwrap_or(1.0);
            groups
                .entry(name("group_id"))
                .or_default()
                .insert(name("function_id"), nanoseconds / count);
        }
    }
    for prefix in ["decode", "encode", "session"] {
        let chosen: Vec<_> = groups
            .iter()
            .filter_map(|(name, row)| Some((name.strip_prefix(prefix)?.strip_prefix('/')?, row)))
            .collect();
        let order = [
            "ours",
            "ours, v5",
            "copy",
            "mqttrs",
            "rumqttc",
            "mqttbytes",
            "mqtt-proto",
            "mqtt-protocol-core",
        ];
        let columns: Vec<_> = order
            .into_iter()
            .filter(|column| chosen.iter().any(|(_, row)| row.contains_key(*column)))
            .collect();
        println!("| {prefix} | {} |", columns.join(" | "));
        println!("| --- |{}", " --- |".repeat(columns.len()));
        for (name, row) in chosen {
            let ours = row.get("ours").copied().unwrap_or(f64::NAN);
            let cell = |column: &&str| match row.get(*column) {
                Some(value) if *column == "ours" => format!("{value:.1}"),
                Some(value) => format!("{value:.1} ({:.2}x)", value / ours),
                None => "-".to_owned(),
            };
            let cells: Vec<_> = columns.iter().map(cell).collect();
            println!("| {name} | {} |", cells.join(" | "));
        }
        println!();
    }
    Ok(())
}
