#!/usr/bin/env -S bash -u
echo "$0 $- $#"
echo "$nothing"
