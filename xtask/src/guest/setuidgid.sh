#!/bin/sh
# setuidgid USER COMMAND…: runs a command as that user.
user=$1
shift
exec su "$user" -s /bin/sh -c 'exec "$0" "$@"' -- "$@"
