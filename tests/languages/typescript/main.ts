declare function require(name: string): any;
declare const process: any;
declare const console: { log(text: string): void };

interface Row {
  name: string;
  score: number;
}

const fs = require("fs");

function parse(text: string): Row[] {
  return text.trim().split("\n").map((line) => {
    const [name, score] = line.split(" ");
    return { name, score: Number(score) };
  });
}

async function main(): Promise<void> {
  const rows = parse(fs.readFileSync(0, "utf8")).sort((a, b) => a.name.localeCompare(b.name));
  console.log(process.argv.slice(2).join(", "));
  await fs.promises.writeFile("out.txt", rows.map((row) => `${row.name} ${row.score}\n`).join(""));
  process.stdout.write(await fs.promises.readFile("out.txt", "utf8"));
  console.log(`sum ${rows.reduce((sum, row) => sum + row.score, 0)}`);
  console.log(`2^100 = ${BigInt(2) ** BigInt(100)}`);
}

main();
