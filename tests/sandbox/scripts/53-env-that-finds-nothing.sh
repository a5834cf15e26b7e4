#!/usr/bin/env nosuchprogram
