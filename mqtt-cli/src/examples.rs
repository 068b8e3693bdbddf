//! Holds the examples at the end of each command's help.

use clap::Command;

/// Commands and their examples. The help texts of the other commands contain examples.
const EXAMPLES: [(&str, &str); 8] = [
    (
        "pub",
        "\
Examples:
  mqtt pub -h broker.example -t plant/pump -m on -q 1
      one message, acknowledged
  mqtt pub -t readings -l -q 2 < readings.txt
      a message for each line of a file
  mqtt pub -L mqtts://user:secret@broker.example/plant/pump -f state.json -r
      a file as a retained message, over TLS
  mqtt pub -t a -m hello -V 5 -D publish content-type text/plain
      with a property of MQTT 5",
    ),
    (
        "sub",
        "\
Examples:
  mqtt sub -h broker.example -t 'plant/#' -v
      topic and message of everything below plant
  mqtt sub -t orders -q 1 -i desk -c
      goes on where it ended, and loses nothing
  mqtt sub -t 'plant/#' -C 10 -W 60 -F '%I %t %p'
      ten messages with their times, for at most a minute
  mqtt sub -t 'old/#' --remove-retained --retained-only
      clears retained messages",
    ),
    (
        "rr",
        "\
Examples:
  mqtt rr -t clock/ask -e clock/answer -m now
      the first message on clock/answer is printed
  mqtt rr -t calc -e answers/7 -m '6*7' -W 5
      ends with 27 if no answer comes within 5 seconds",
    ),
    (
        "broker",
        "\
Examples:
  mqtt broker
      for programs of this machine, on port 1883
  mqtt broker --bind 0.0.0.0:1883 --user-file users --acl-file rules
      for the network, with users (mqtt passwd) and what they may do
  mqtt broker --bind mqtts://0.0.0.0:8883 --cert broker.pem --key broker.key --user-file users
      over TLS
  mqtt broker --config broker.toml --store /var/lib/mqtt
      what a configuration file says; sessions and retained messages survive a crash",
    ),
    (
        "passwd",
        "\
Examples:
  mqtt passwd users pump
      asks for the password of the user pump
  mqtt passwd -b users pump secret
      for scripts; other users of the machine can see the password while it runs",
    ),
    (
        "store",
        "\
Examples:
  mqtt store show /var/lib/mqtt
  mqtt store check /var/lib/mqtt && mqtt broker --store /var/lib/mqtt",
    ),
    (
        "demo",
        "\
Example:
  mqtt demo",
    ),
    (
        "check",
        "\
Examples:
  mqtt check broker.example
  mqtt check broker.example -p 8883 --cafile ca.pem -u user -P secret",
    ),
];

/// Adds the examples to the commands.
pub(crate) fn with_examples(program: Command) -> Command {
    let all = "\
Examples:
  mqtt broker                          a broker on this machine
  mqtt sub -t 'plant/#' -v             print what arrives
  mqtt pub -t plant/pump -m on         publish
  mqtt top                             watch all topics
  mqtt decode 30 03 00 01 61           explain a packet

mqtt COMMAND --help has the options of a command and examples.";
    EXAMPLES
        .iter()
        .fold(program.after_help(all), |program, (name, examples)| {
            program.mut_subcommand(name, |command| command.after_help(*examples))
        })
}
