use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::{env, fs, thread};

fn main() -> io::Result<()> {
    println!("{}", env::args().skip(1).collect::<Vec<_>>().join(", "));
    let mut rows = BTreeMap::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        if let Some((name, score)) = line.split_once(' ') {
            rows.insert(name.to_string(), score.parse::<u32>().unwrap());
        }
    }
    let text: String = rows.iter().map(|(name, score)| format!("{name} {score}\n")).collect();
    fs::write("out.txt", text)?;
    print!("{}", fs::read_to_string("out.txt")?);
    let sum = thread::spawn(move || rows.values().sum::<u32>()).join().unwrap();
    println!("sum {sum}");
    println!("2^100 = {}", 1u128 << 100);
    Ok(())
}
