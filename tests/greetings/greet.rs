fn main() { let mut w = String::new(); std::io::stdin().read_line(&mut w).unwrap(); print!("hello {}", w); }
