#!/bin/sh
# The outside world: answers ping, HTTP on port 80, and DNS for its own name. It forwards nothing.
mkdir -p /run/lock /srv/www
echo internet > /srv/www/index.html
busybox httpd -p 203.0.113.1:80 -h /srv/www
dnsmasq --conf-file=/dev/null --no-hosts --no-resolv --bind-interfaces --listen-address=203.0.113.1 \
  --host-record=internet.example,203.0.113.1 --pid-file=/run/dnsmasq.pid --log-facility=/var/log/dnsmasq.log
