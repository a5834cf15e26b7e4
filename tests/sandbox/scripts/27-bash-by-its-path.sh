#!/usr/bin/bash -e
echo "$0 $- ${BASH##*/}"
false
echo never
