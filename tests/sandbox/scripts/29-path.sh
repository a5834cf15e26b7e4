echo "${PATH//:/$'\n'}"
for name in sh bash env python3 perl gcc ls awk grep sed find diff which make; do command -v $name || echo "no $name"; done
type -a echo; hash -t ls
PATH=/nowhere; ls
