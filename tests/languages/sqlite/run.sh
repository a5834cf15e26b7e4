printf "%s, %s\n" "$@"
cat > in.txt
sqlite3 -batch roll.db <<END
create table roll(name text, score integer);
.separator " "
.import in.txt roll
.output out.txt
select * from roll order by name;
END
cat out.txt
sqlite3 roll.db "select 'sum ' || sum(score) from roll"
echo "2^100 = $(echo 2^100 | bc)"
