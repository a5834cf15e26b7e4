#!/bin/sh
echo goes on
