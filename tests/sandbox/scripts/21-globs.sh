mkdir -p d/e; touch d/{a,b}.txt d/.hidden d/e/c.txt
echo d/* nothing* d/[ab].txt
shopt -s globstar nullglob dotglob; echo ** ; echo nothing*
shopt -s extglob; echo d/!(a).txt
case abc in a?c) echo matches ;;& *b*) echo too ;; esac
[[ abc =~ ^a(.)c$ ]] && echo "${BASH_REMATCH[1]}"
echo {1..5..2} {a,b}{1,2} ~ ~/x
list=(a "b c" d); list+=(e); unset 'list[1]'
echo "${#list[@]} ${!list[@]} ${list[-1]} ${list[@]:1:2}"
declare -A map=([one]=1 [two]=2); map[three]=3
for key in $(printf '%s\n' "${!map[@]}" | sort); do echo "$key=${map[$key]}"; done
declare -p list map | sort
mapfile -t lines < lib.sh; echo "${#lines[@]}"
declare -n reference=list; echo "${reference[0]}"
declare -i number=3+4; echo $number; declare -u upper=abc; echo $upper
