printf '%s\n' b c a | sort | tr a-c A-C | paste -sd,
true | false | true; echo "${PIPESTATUS[*]} $?"
set -o pipefail; true | false | true; echo $?
echo one |& cat; ls nosuch |& sed 's/^.*: //'
seq 100000 | tail -n 1
! true; echo $?
shopt -s lastpipe; echo x | read -r y; echo "$y"
