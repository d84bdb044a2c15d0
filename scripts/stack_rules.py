"""What stack_use.py is told, as the machine code does not show it: which functions may be behind a virtual call or a pointer,
and how often a recursion may be entered. A new interface, function pointer or recursion is declared here. Names are without
bulkhead::."""

# What a caller may call virtually: the first rule that fits a function's name (without bulkhead:: and parameters' names)
# gives the interfaces and, if there is a third column, a pattern for the names of the targets.
CALLERS = [
    # The virtual PC.
    (r"^Bus::", "Device"),
    (r"^Device::", "Device", r"::(read|write)\("),
    (r"^ByteDevice::", "Device", r"::(read|write)_byte"),
    (r"^IrqRouter::Line::set", "IrqLine", r"Pic8259::Line|IoApic::Line"),
    (r"^Pic8259::", "IrqLine", r"Pic8259::Line|PicOutput"),
    (r"^PciHost::", "PciFunction"),
    (r"^(ChipClock|VmClock)::", "Clock PhysicalMachine"),
    (r"^(AcpiPm::(update|reset|collect|expire)|I8042::update|Uart16550::update|RtcMc146818::update|Pit8254::(update|drive))",
     "Clock IrqLine", r"IrqRouter|Clock::"),
    (r"^AcpiPm::read", "Clock IrqLine", r"IrqRouter|Clock::"),
    (r"^(AcpiPm|ResetControl|SystemControlA|I8042)::", "Clock IrqLine PowerControl", r"IrqRouter|Clock::|VirtualMachine"),
    (r"^Uart16550::transmit", "CharacterSink"),
    (r"^(Pit8254|RtcMc146818|Uart16550|VgaText|PostPort)::", "Clock IrqLine", r"IrqRouter|Clock::"),
    (r"^Interrupts::", "Waker"),
    (r"^IoApic::", "InterruptBus"),
    (r"^LocalApic::", "InterruptBus Waker Clock"),
    (r"^(read|write)_msr\(", "VcpuBackend PhysicalMachine"),
    (r"^VirtualMachine::(VirtualMachine|power_on|run|now|resume)", "Device Clock PhysicalMachine Surroundings"),
    (r"^VirtualMachine::(accessed|find_deadline|expire)", "Device Clock", r"::deadline|::next|::expire|[cC]lock"),
    (r"^VirtualMachine::(port_|mmio_|(read|write)_ports)", "Device Clock Surroundings", r"::(read|write)(_string)?\(|::deadline|[cC]lock|::wake"),
    (r"VirtualMachine::", "Surroundings"),
    (r"^QuickExits::", "VcpuBackend Device Clock"),
    (r"^Vcpu::describe", "VcpuBackend Sink"),
    (r"^(Vcpu|VcpuContext)::", "VcpuBackend PhysicalMachine PagingMemory Clock"),
    (r"^(Emulator|GuestAccess|TracelessMemory|SharedTables|alu)::|^(emulate|execution_mode|fetch_instruction|paging_state|"
     r"walk_pages|read_guest_memory|store_memory|store|load)\b", "PagingMemory VcpuBackend"),
    (r"^(vmx|svm)::|^read_registers|^move_tsc", "Sink VcpuBackend"),
    # What carries it.
    (r"^PageTableAlgorithm::|TableMemory|^CompartmentTables", "TableMemory"),
    (r"^Core::|^WorkOf<", "HostServices PhysicalMachine VcpuBackend"),
    (r"^VmManager::(\w*summary|details|nanoseconds|host|memory|integrity|core_|wake)", "PhysicalMachine HostServices",
     r"HostMachine|Services::(core_|this_core|info|own_memory|integrity|kick)"),
    (r"^VmManager::report", "VmObserver HostServices PhysicalMachine"),
    (r"VmManager::", "HostServices PhysicalMachine VcpuBackend"),
    (r"run_on", "CoreWork"),
    (r"^CpuidPolicy::", "PhysicalMachine"),
    (r"^(Provisioner|PartitionPlan|VmBuilder)::|^build_virtual_machine",
     "HostServices PhysicalMachine BackendFactory TableMemory VcpuBackend Sink"),
    (r"^Logger::", "Sink MicrosecondClock InterruptFlag"),
    (r"^drivers::Screen::", "Sink", r"::new_line|::put|::scroll|^drivers::"),
    (r"^drivers::|^Drawing::", "Sink PhysicalReader", r"^drivers::|Window|PhysicalReader"),
    (r"^(multiboot[12]|AcpiReader)::|scan_for_rsdp|^find_root|^read_tables?\b|^parse_one", "PhysicalReader Sink"),
    # The operator.
    (r"^(Session|SerialBridge|SerialLines)::", "Sink Management SerialPort"),
    (r"^LineEditor::(complete|list)", "Sink Completer"),
    (r"^LineEditor::", "Sink"),
    (r"^CommandInterpreter::complete|^offer|^Words::|CandidateSink&", "CandidateSink Management"),
    (r"^(CandidateList|CommonPrefix|OutputBuffer)::", "Sink"),
    (r"CommandContext|^CommandInterpreter::|^GuestLines::|^take_sample|^draw\b|^run_top|^name_width|^discover",
     "Management Sink"),
    (r"^(toml|Reporter|Setting)::|TableReader|^store_|^parse_config|^read_vm", "Sink"),
    # What writes.
    (r"panic", "Sink MicrosecondClock", r"PanicOutput|TscClock"),
    (r"print|format_value|write_error|^JsonWriter::|Lines::operator|^column|^mebibytes|^describe|^PanicOutput|"
     r"::write\(|::explain|^number\(", "Sink"),
]

# Calls through pointers that are no virtual functions: caller, targets.
POINTERS = [
    (r"^print_arguments\(", r"^detail::make_argument<"),
    (r"^CommandInterpreter::step\(", r"(^|::)[a-z_]+\(CommandContext&\)|rows::.lambda\(CommandContext"),
    (r"TableReader<.*>::(read_node|store)", r"^(store|Setting::|parse_).*Setting|lambda\(.*Setting const"),
    (r"^PageTableAlgorithm::visit_table", r"PageTableAlgorithm::visit<.*_FUN|PageTableAlgorithm::visit<.*lambda"),
    (r"^PartitionPlan::", r"^memory_need_of"),
    (r"^core_entered", r"^run_guests\("),
    (r"^dispatch_interrupt\(", r"^on_\w+\(void\*\)|^on_unexpected_interrupt"),
    (r"^drivers::(measure|read_point)", r"^drivers::read_(pm_timer|pit)"),
    (r"^dispatch_nmi\(", r"^on_nmi|^take_kick_nmi"),
    (r"^(act|end_machine)\(CommandContext", r"^VmManager::(start|pause|unpause|reset|shutdown|destroy|reboot|poweroff)\("),
    (r"^Announcer::vm_changed", r"^Session::poll_attached"),
    (r"^drivers::MachinePower::prepare", r"^map_device"),
    (r"^(enter|leave)_panic\(", r"^freeze_other_cores|^reset_machine|begin_core_table\(Host&\)::.lambda"),
    (r"^print_address\(", r"^symbolize"),
    (r"^vmx::Backend::run\(|^svm::Backend::run\(", r"^bulkhead_(vmx|svm)_enter(_guarded)?$"),
    (r"^bulkhead_svm_(arm|take)_timer|^svm::Backend::run\(", r"^arm_timer\(|^timer_interrupt_count\("),
    (r"^vmx::read_capability_msrs", r"^detect_vmx\(\)::.lambda"),
    (r"^on_console_interrupt\(void\*\)", r"^on_console_interrupt\(void\*\)$"),
]

# Calls that the code has and that do not happen: caller, callee, why not.
EXCLUDED = [
    (r"^Announcer::vm_changed", r"^Session::poll\(", "only while attached to a VM's console, when no command runs"),
    (r"^(?!Vcpu::run)", r"^(vmx|svm)::Backend::run\(", "nothing else enters the guest"),
]

# Functions that do not come back: what lies beyond is counted as a panic, which may use all of its stack.
LAST = r"^(void )?panic<|^panic_with\(|^__stack_chk_fail|^std::__throw|^panic_on_trap\(|^(\[\[noreturn\]\] )?cpu::stop"

# Recursion that has a bound: functions of the cycle, how often they may be entered, why no more.
BOUNDS = [
    (r"^PageTableAlgorithm::(visit_table|free_tables|clear|map_in|is_empty|clear_table)", 5, "one level of the tables each"),
    (r"^toml::Parser::array", 2, "an array in an array is refused"),
    (r"^(void )?TableReader<", 3, "the depth of the keys of one table"),
    (r"^Pic8259::update|^Pic8259::Line::set", 2, "from the slave to the master"),
    (r"^PciHost::(read|write)", 2, "an access in two halves"),
    (r"^void std::__introsort_loop", 16, "twice the logarithm of the length, which is at most 256"),
    (r"^on_console_interrupt", 2, "the UART's, and the console's behind it"),
    (r"^format_value\(Sink&, Filtered", 2, "a filter behind a filter"),
    (r"^CommandInterpreter::(step|repeat)", 2, "the command that `repeat` runs cannot be `repeat`"),
    (r"^Session::(edit|finish_command|poll)", 2, "the input that was kept holds one line"),
]

# Sinks that write to other sinks: those only to sinks of a lower level. What is not here is of level 0. What a sink's write()
# calls of its own (LineSink::line) is half a level below.
SINK_LEVELS = [
    (r"FilteringSink", 8),
    (r"EscapingSink", 7),
    (r"AnswerLines", 6),
    (r"LogLines|ProblemLog", 5),
    (r"ConsoleLog", 4),
    (r"OutputBuffer", 3),
    (r"PanicOutput|Terminal", 2),
    (r"^drivers::", 1),
]
ALL_SINKS = 9

# From some functions on there are only certain sinks: function, the sinks.
TEXT = r"FixedString"
CONTEXTS = [
    (r"\bfail(<|\()|^Error", TEXT),
    (r"panic", r"FixedString|PanicOutput|^drivers::"),
    (r"\bLogger::(write|error|warning|info)", TEXT),
    (r"^Logger::", r"ConsoleLog|^drivers::"),
    (r"^on_\w+\(void\*\)|^core_entered", TEXT),
    (r"^(Session|LineEditor)::|^Announcer", r"FixedString|Terminal|OutputBuffer|FilteringSink|^drivers::"),
    (r"^VmManager::(create|print_plan|check_tables)", r"FixedString|AnswerLines"),
    (r"^(Vcpu|VirtualMachine|vmx::Backend|svm::Backend|Provisioner)::|^load_guest|^VmManager::", TEXT),
    (r"^CommandInterpreter::step", r"FixedString|OutputBuffer|NullSink|FilteringSink|EscapingSink|AnswerLines"),
    (r"^VmManager::adopt", r"LogLines"),
    (r"^parse_config", r"ProblemLog|AnswerLines|FixedString"),
]

# A value's format may print in turn, but plain values only.
FORMATTER, DEEPEST_FORMAT = r"^print_arguments\(", 2
