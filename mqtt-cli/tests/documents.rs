//! Runs the console examples in `docs`: each command prints the lines below it.

use std::path::Path;

use mqtt_testing::process::run;

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

/// Returns the commands of the blocks marked `console`, each with its output.
fn commands(document: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut is_inside = false;
    let mut goes_on = false;
    for line in document.lines() {
        if line.starts_with("```") {
            is_inside = line == "```console";
        } else if is_inside {
            if let Some(command) = line.strip_prefix("$ ") {
                commands.push((command.to_owned(), String::new()));
                goes_on = line.ends_with('\\');
                continue;
            }
            let (command, output) = commands.last_mut().expect("a block begins with a command");
            let text = if goes_on { command } else { output };
            if goes_on {
                text.push('\n');
            }
            text.push_str(line);
            if goes_on {
                goes_on = line.ends_with('\\');
            } else {
                text.push('\n');
            }
        }
    }
    commands
}

#[test]
fn commands_in_documents_print_the_documented_output() {
    let folder = Path::new(MQTT).parent().unwrap().to_str().unwrap();
    for name in ["ALIYUN.md", "ONENET.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../docs")
            .join(name);
        let commands = commands(&std::fs::read_to_string(path).unwrap());
        assert!(commands.len() >= 8, "{name}: {commands:?}");
        for (command, output) in commands {
            let script = format!("exec 2>&1; PATH=\"{folder}:$PATH\"\n{command}");
            let ended = run("bash", &["-c", &script], "");
            assert_eq!(ended.stdout, output, "{name}: {command}");
        }
    }
}
