#!/bin/sh
# Starts what a real worker or network node runs at boot. Every command returns once its service is up.
mkdir -p /run/sshd /run/lock /run/openvswitch /run/netns
chmod 1777 /run/lock

/usr/sbin/sshd

db=/etc/openvswitch/conf.db
[ -e "$db" ] || ovsdb-tool create "$db" /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server "$db" --remote=punix:/run/openvswitch/db.sock --pidfile --detach --no-chdir \
  --log-file=/var/log/openvswitch/ovsdb-server.log -vconsole:off -vsyslog:off
ovs-vsctl --timeout=30 --no-wait init -- set Open_vSwitch . \
  "external_ids:hostname=$(hostname)" "external_ids:system-id=$(cat /etc/machine-id)"
ovs-vswitchd unix:/run/openvswitch/db.sock --pidfile --detach --no-chdir \
  --log-file=/var/log/openvswitch/ovs-vswitchd.log -vconsole:off -vsyslog:off
