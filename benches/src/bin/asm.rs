use std::hint::black_box;
use mqtt_proto::*;
use mqtt_session::*;
const NOW: Instant = Instant::from_millis(0);
fn main() {
    let n: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let q: u8 = std::env::args().nth(2).unwrap().parse().unwrap();
    let mut client = Client::new(Config::default(), Heap);
    client.connect(&Connect::new(Version::V311, "c"), NOW).expect("room");
    let k = client.outgoing().len(); client.sent(k);
    client.receive(&[0x20, 2, 0, 0], NOW).unwrap();
    let message = Outgoing::new(TopicName::from_static("factory/line7/sensor"), QoS::new(q).unwrap(), &[0x42; 64]);
    let t = std::time::Instant::now();
    for _ in 0..n { let token = client.publish(black_box(&message), NOW).unwrap(); let k = black_box(client.outgoing()).len(); client.sent(k);
      if let Some(t) = token { let [a, b] = t.packet_id().unwrap().get().to_be_bytes(); match client.receive(black_box(&[0x40, 2, a, b]), NOW) { Ok(Step::Packet { event: Some(Event::Acknowledged{..}), .. }) => {}, _ => panic!() } } }
    println!("{:.1} ns", t.elapsed().as_nanos() as f64 / n as f64);
}
