// The first process of a Linux that does nothing but start: it says that user space was reached, and has the
// kernel reset the machine.
#include <sys/reboot.h>
#include <unistd.h>

int main() {
    constexpr char text[] = "user space: about to reset\r\n";
    // What stdout is has been opened by the kernel, if it found /dev/console.
    (void)!write(1, text, sizeof text - 1);
    sync();
    reboot(RB_AUTOBOOT);
    return 1;
}
