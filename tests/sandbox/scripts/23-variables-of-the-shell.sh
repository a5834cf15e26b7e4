declare -p | sort
