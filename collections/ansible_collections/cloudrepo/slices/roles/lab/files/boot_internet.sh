#!/bin/sh
# The outside world: answers ping, HTTP on port 80, and DNS for its own name. It forwards nothing.
mkdir -p /run/lock /srv/www
echo internet > /srv/www/index.html
dnsmasq --conf-file=/dev/null --no-hosts --no-resolv --bind-interfaces --listen-address=203.0.113.1 \
  --host-record=internet.example,203.0.113.1 --pid-file=/run/dnsmasq.pid --log-facility=/var/log/dnsmasq.log
python3 -I -m http.server 80 --bind 203.0.113.1 --directory /srv/www > /var/log/http.log 2>&1 &
exec python3 -I - <<'EOF'
import socket, time
for attempt in range(200):
    try:
        socket.create_connection(("203.0.113.1", 80), timeout=1).close()
        break
    except OSError:
        time.sleep(0.05)
else:
    raise SystemExit("no answer on port 80")
EOF
