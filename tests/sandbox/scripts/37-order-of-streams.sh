exec 2>&1
for i in 1 2 3; do echo "out $i"; echo "err $i" >&2; done
ls nosuchfile . ; python3 -c '
import sys
print("buffered"); print("now", file=sys.stderr); sys.stdout.flush()'
perl -e '$| = 0; print "perl out\n"; warn "perl err\n";'
