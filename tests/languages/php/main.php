<?php
echo implode(", ", array_slice($argv, 1)), "\n";
$rows = [];
while (($line = fgets(STDIN)) !== false) {
    [$name, $score] = explode(" ", trim($line));
    $rows[$name] = (int) $score;
}
ksort($rows);
$text = "";
foreach ($rows as $name => $score) {
    $text .= "$name $score\n";
}
file_put_contents("out.txt", $text);
echo file_get_contents("out.txt");
assert(mb_strlen($argv[1]) === 5 && json_decode(json_encode($rows), true) === $rows);
printf("sum %d\n", array_sum($rows));
echo "2^100 = ", bcpow("2", "100"), "\n";
