const fs = require("fs");
const { Worker, isMainThread, parentPort, workerData } = require("worker_threads");

if (!isMainThread) {
  parentPort.postMessage(workerData.reduce((sum, row) => sum + row[1], 0));
} else {
  const rows = fs.readFileSync(0, "utf8").trim().split("\n").map((line) => line.split(" "))
    .map(([name, score]) => [name, Number(score)]).sort();
  console.log(process.argv.slice(2).join(", "));
  fs.writeFileSync("out.txt", rows.map((row) => row.join(" ") + "\n").join(""));
  process.stdout.write(fs.readFileSync("out.txt", "utf8"));
  new Worker(__filename, { workerData: rows }).on("message", (sum) => {
    console.log(`sum ${sum}`);
    console.log(`2^100 = ${2n ** 100n}`);
  });
}
