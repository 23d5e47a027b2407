# Send frames as they are, and hear what arrives: frames.pl INTERFACE...
# It says "ready" when it hears, reads lines "INTERFACE HEX" and then "go", says "sent", and on "end" prints what it
# has heard: "INTERFACE MARK SOURCE" for each frame with a mark that came from outside, whoever it was for.
# Without modules: a guest has nothing but the interpreter. All is as Linux on x86 has it.
my (%index, %name, %heard, @queue, $typed, $going);
socket(WIRE, 17, 3, 0x0300) or die "AF_PACKET: $!\n";
for my $interface (@ARGV) {
    my $request = pack("a16x24", $interface);
    ioctl(WIRE, 0x8933, $request) or die "$interface: $!\n";    # SIOCGIFINDEX
    $index{$interface} = unpack("x16i", $request);
    $name{$index{$interface}} = $interface;
}
setsockopt(WIRE, 1, 33, pack("i", 1 << 25));                    # SO_RCVBUFFORCE
setsockopt(WIRE, 263, 1, pack("iSSa8", $_, 1, 0, "")) or die "promiscuous: $!\n" for values %index;
$| = 1;
print "ready\n";

while (1) {
    my $ready = "";
    vec($ready, fileno($_), 1) = 1 for (STDIN, WIRE);
    select($ready, undef, undef, $going && @queue ? 0.002 : undef);
    hear() if vec($ready, fileno(WIRE), 1);
    if (vec($ready, fileno(STDIN), 1)) {
        sysread(STDIN, $typed, 65536, length $typed) or exit;
        while ($typed =~ s/^(.*)\n//) { obey($1) }
    }
    next unless $going && @queue;
    my ($interface, $frame) = @{shift @queue};
    send(WIRE, $frame, 0, pack("SnlSCCa8", 17, 3, $index{$interface}, 0, 0, 6, "")) or die "$interface: $!\n";
    print "sent\n" unless @queue;
}

sub obey {
    my ($first, $second) = split / /, $_[0];
    if ($first eq "end") {
        print "$_\n" for sort keys %heard;
        exit;
    }
    $going = $first eq "go";
    print "sent\n" if $going && !@queue;
    push @queue, [$first, pack("H*", $second)] unless $going;
}

sub hear {
    my $from = recv(WIRE, my $frame, 4096, 0);
    my (undef, undef, $interface, undef, $kind) = unpack("SnlSC", $from);
    return if $kind == 4 || !$name{$interface};                 # PACKET_OUTGOING
    # No mark is sent in TCP, but the session that gives this program its orders may hold one by chance.
    return if unpack("x12n", $frame) == 0x0800 && unpack("x23C", $frame) == 6;
    my ($source, $digits) = (unpack("x6H12", $frame), unpack("H*", $frame));
    $heard{"$name{$interface} $_ $source"} = 1 for $digits =~ /c51d(....)/g;
}
