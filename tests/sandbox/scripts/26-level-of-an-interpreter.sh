#!/bin/sh
echo "$0 $SHLVL $#"
set -o | grep posix
echo "$-"
